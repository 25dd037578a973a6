"""Overrides and commands, as shells and people write them."""

from odd_inputs.doing import HERE, command, experiment, grown, overrides, with_environment, within
from odd_inputs.row import accepted, refused

LORA = "generation: {lora: [{path: a.safetensors}]}\n"
SEED_3 = "generation: {seed: 3}\n"


def keeps(text):
    return lambda x: x.generation.negative_prompt == text


ROWS = [
    refused("a list with commas alone", command("plan", "classes=cat,dog"), "classes = 'cat,dog'", "[cat,dog]"),
    refused("more than a file name may hold", command("plan", "classes=" + ", ".join(["animal"] * 60)), "classes = "),
    refused("a list that is never closed", overrides("classes=[cat,dog"), "classes = '[cat,dog'", "YAML"),
    accepted(
        "a list with quotes and blanks",
        overrides("classes=[ 'cat' , \"a dog\" ]"),
        lambda x: x.classes == ["cat", "a dog"],
    ),
    accepted("a list of numbers as classes", overrides("classes=[0,1,2]"), lambda x: x.classes == ["0", "1", "2"]),
    accepted("an empty list of seeds of clones", overrides("generation.seeds=[]"), lambda x: x.generation.seeds == []),
    accepted(
        "the same key twice: the last holds",
        overrides("generation.seed=1", "generation.seed=2"),
        lambda x: x.generation.seed == 2,
    ),
    accepted(
        "a section, then a key of it",
        overrides("generation={seed: 3, batch_size: 8}", "generation.seed=4"),
        lambda x: (x.generation.seed, x.generation.batch_size) == (4, 8),
    ),
    refused("a section that is a number", overrides("generation=3"), "generation = 3"),
    refused("a key below a number", experiment(SEED_3, "generation.seed.x=4"), "generation.seed"),
    refused("a number of a list", experiment(LORA, "generation.lora.0.path=b"), "generation.lora", "list"),
    refused("a number of a list in brackets", experiment(LORA, "generation.lora[0].path=b"), "generation.lora[0]"),
    refused("blanks around =", overrides("generation.seed =3"), "generation.seed ", "key=value"),
    accepted("a blank before a number", overrides("generation.seed= 3"), lambda x: x.generation.seed == 3),
    refused("a value that is empty", overrides("generation.seed="), "generation.seed = None", "whole number"),
    accepted(
        "an empty value where nothing is allowed",
        overrides("generation.image_size="),
        lambda x: x.generation.image_size is None,
    ),
    refused("= alone", overrides("="), "override = '='", "key=value"),
    refused("== for =", overrides("generation.seed==3"), "generation.seed = '=3'"),
    refused("a colon for =", overrides("generation.seed: 3"), "override", "key=value"),
    refused("a wide =", overrides("generation.seed＝3"), "override", "key=value"),
    refused("a dash more", overrides("--generation.seed=3"), "--generation", "unknown key"),
    refused("a plus, as Hydra adds keys", overrides("+generation.seed=3"), "+generation", "unknown key"),
    refused("a tilde, as Hydra deletes keys", overrides("~generation.seed=3"), "~generation", "unknown key"),
    refused("sweeps as Hydra writes them", overrides("generation.guidance_scale=1,2,4"), "guidance_scale", "'1,2,4'"),
    accepted("quotes around a text", overrides('generation.negative_prompt="it\'s"'), keeps("it's")),
    accepted("one quote", overrides("generation.negative_prompt='80s photo"), keeps("'80s photo")),
    accepted("a backslash", overrides("generation.negative_prompt=a\\nb"), keeps("a\\nb")),
    accepted("a percent sign and a hash", overrides("generation.negative_prompt=50% #1"), keeps("50% #1")),
    accepted("braces in a text", overrides("generation.negative_prompt={dark}"), keeps("{dark}")),
    accepted("an equals sign in a text", overrides("generation.negative_prompt=a=b"), keeps("a=b")),
    accepted("letters beyond 16 bits", overrides("generation.negative_prompt=🐈"), keeps("🐈")),
    accepted("a line break in a text", overrides("generation.negative_prompt=a\nb"), keeps("a\nb")),
    refused("bytes that are no text", overrides("generation.negative_prompt=\udce9"), "negative_prompt", "UTF-8"),
    accepted(
        "a variable of the environment",
        with_environment(overrides("name=${oc.env:MY_NAME}"), MY_NAME="b"),
        lambda x: x.name == "b",
    ),
    accepted(
        "a number of the environment",
        with_environment(overrides("generation.seed=${oc.env:MY_SEED}"), MY_SEED="7"),
        lambda x: x.generation.seed == 7,
    ),
    refused("half a lookup", overrides("name=${oc.env:HOME"), "name = ", "\\${"),
    refused("a text where a truth value is wanted", overrides("training.compile=maybe"), "training.compile", "'maybe'"),
    refused(
        "options that are a list",
        overrides("training.recipe_options=[learning_rate]"),
        "training.recipe_options",
        "{key: value}",
    ),
    refused("a command that is none", command("evalute"), "No such command 'evalute'", "evaluate"),
    refused("an option that is none", command("plan", "--images", "3"), "No such option", "--images"),
    refused("an option of another command", command("plan", "--to", "3"), "No such option", "--to"),
    refused("two experiment files", command("plan", "a.yaml", "b.yaml"), "b.yaml", "one experiment file"),
    refused("a file that is not there", command("plan", "a.yaml"), "a.yaml", "no such file"),
    refused("a folder for a file", command("plan", HERE), "configuration", "is a folder"),
    refused(
        "a key without a value", command("plan", "generation.seed"), "generation.seed", "no such file", "key=value"
    ),
    refused("an option without its value", command("grow", "--to"), "--to", "requires an argument"),
    refused("a text where an option takes a number", command("grow", "--to", "many"), "--to", "integer"),
    refused("growing to no image", command("grow", "--to", "0"), "to = 0", "at least 1"),
    refused(
        "growing beyond all disks", command("grow", "--to", str(10**12), "storage=runs"), "images_per_class", "shards"
    ),
    refused("growing beyond all numbers", command("grow", "--to", str(10**30), "storage=runs"), "to = 1000", "at most"),
    refused("growing by a negative number", grown(-5, None), "images = -5", "at least one"),
    refused("growing a class that is none", grown(5, ["Cat"], classes=["cat"]), "classes = 'Cat'", "cat"),
    refused("growing commas alone", command("grow", "--to", "3", "--classes", ",,"), "classes = ',,'", "keys"),
    refused("an unknown form of export", command("export", "--format", "tfrecord"), "'tfrecord'", "webdataset"),
    refused("a comparison with nothing", command("compare"), "with = ''", "--with"),
    refused("a comparison with a file", command("compare", "--with", "other.yaml"), "other.yaml", "key=value"),
    refused("a home that is nobody's", command("plan", "~nobody_of_this_name/x.yaml"), "~nobody_of_this_name"),
    refused(
        "a file in a name longer than names are", command("plan", "x" * 300 + ".yaml"), "configuration", "too long"
    ),
    accepted("the help", command("--help"), lambda x: x.returncode == 0 and "plan" in x.stdout),
    accepted(
        "a file whose name has an =",
        command("plan", "a=b.yaml", "storage=runs", files={"a=b.yaml": SEED_3}),
        lambda x: x.returncode == 0,
    ),
    accepted(
        "a file whose name has a blank and a quote",
        command("plan", "my 'own'.yaml", "storage=runs", files={"my 'own'.yaml": SEED_3}),
        lambda x: x.returncode == 0,
    ),
    refused(
        "a folder that was deleted beneath the command",
        within(lambda folder: [folder.rmdir(), overrides("storage=runs")(folder)]),
        "storage = 'runs'",
        "folder",
    ),
]
