"""Small tables in a folder."""

import threading

import pyarrow as pa

from raysd.storage import tables
from raysd.storage.location import Location


def test_files_are_read_at_a_time_and_answered_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "NUM_THREADS", 3)
    folder, names = Location(str(tmp_path)), [f"{number}.parquet" for number in range(3)]
    for number, name in enumerate(names):
        tables.write_table(folder, name, pa.table({"x": list(range(number))}))
    together = threading.Barrier(3, timeout=30)

    def read(name):
        together.wait()
        return tables.num_rows(folder, name)

    assert tables.read_each(read, names) == [0, 1, 2]
    assert tables.read_each(read, []) == []
