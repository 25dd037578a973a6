"""The command's entry point in the tests' own process, on the tests' Ray, which takes a tenth of the time of a
process of its own."""

import contextlib
import io
import subprocess

import pytest


def run_main(folder, *words):
    """Run `raysd` with these words in a folder; exit code and output like a finished process."""
    from raysd.cli import main

    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.chdir(folder)
        patch.setattr("sys.argv", ["raysd", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
    return subprocess.CompletedProcess(words, ended.value.code or 0, out.getvalue(), err.getvalue())
