"""Training, evaluation, sweeps and reports."""

from odd_inputs.doing import HERE, both, checked, command, image, image_parquet, overrides
from odd_inputs.row import accepted, refused

SETS = {f"{name}/{file}": data for name in ("a", "b") for file, data in both().items()}
OWN = {"classes": ["cat", "dog"], "lint": "off"}


def training(files=None, **values):
    """Check the settings of a training."""
    return checked("check_training", files, **OWN, training=values)


def recipe(**values):
    return training(recipe_options=values)


def evaluation(files=None, **values):
    """Check the sets of an evaluation."""
    return checked("check_training", files, **OWN, evaluation=values)


def sweep(values, files=None, **sections):
    """Check a sweep."""
    own = OWN | {
        "evaluation": {"validation_set": f"{HERE}/a", "validation_images_per_class": None},
        "generation": {"images_per_class": 200},
    }
    return checked(
        "check_sweep",
        files or {f"a/{name}": data for name, data in both().items()},
        **(own | sections),
        sweep={"random": False} | values,
    )


def space(**values):
    return sweep({"space": {"generation": values}})


def mapped(content):
    """Check a test set with a class map of this content."""
    return evaluation({**SETS, "map.json": content}, test_sets=[{"name": f"{HERE}/a", "class_map": f"{HERE}/map.json"}])


WHOLE = {"generation": {"guidance_scale": [1.0]}}


def is_well(answer):
    return answer is None


ROWS = [
    refused("no epoch", training(num_epochs=0), "training.num_epochs = 0", "1"),
    refused("half an epoch", training(num_epochs=0.5), "training.num_epochs = 0.5", "whole number"),
    refused("a batch of no image", training(batch_size=0), "training.batch_size = 0", "1"),
    refused(
        "a batch of more images than there are",
        sweep({}, generation={"images_per_class": 1}),
        "training.batch_size",
        "only 2 images",
    ),
    refused(
        "a batch that workers cannot share", sweep({}, training={"num_workers": 3}), "batch_size = 128", "3 workers"
    ),
    refused("a learning rate of 0", recipe(learning_rate=0), "learning_rate = 0"),
    refused("a negative learning rate", recipe(learning_rate=-0.1), "learning_rate = -0.1"),
    refused("a learning rate that is not a number", recipe(learning_rate=float("nan")), "learning_rate = nan"),
    refused("a learning rate without end", recipe(learning_rate=float("inf")), "learning_rate = inf"),
    refused("a weight decay without end", recipe(weight_decay=float("inf")), "weight_decay = inf"),
    refused("a temperature without end", recipe(temperature=float("inf")), "temperature = inf"),
    refused("mixup without end", recipe(mixup=float("inf")), "mixup = inf"),
    refused("a blur without end", recipe(blur_sigma=[0.1, float("inf")]), "blur_sigma"),
    refused("a norm to clip that has no end", recipe(clip_norm=float("inf")), "clip_norm", "finite"),
    accepted("no norm to clip", recipe(clip_norm=None), is_well),
    refused("a crop of more than the image", recipe(crop_area=[0.5, 1.5]), "crop_area"),
    refused("a crop upside down", recipe(crop_area=[1.0, 0.2]), "crop_area", "first"),
    refused("a warm-up of all steps", recipe(warmup_share=1.0), "warmup_share = 1.0"),
    refused("an optimizer in capitals", recipe(optimizer="AdamW"), "optimizer = 'AdamW'", "'adamw'"),
    refused("a short name of an option", recipe(lr=0.1), "recipe_options.lr = 0.1", "unknown key"),
    refused("a recipe that is none", training(recipe="imagenet"), "training.recipe = 'imagenet'", "paper"),
    refused(
        "a model of another package",
        training(backbone="facebook/dinov2-base"),
        "training.backbone",
        "timm has no such model",
    ),
    refused(
        "a model with a wrong letter", training(backbone="resnet-18"), "training.backbone = 'resnet-18'", "resnet18"
    ),
    refused("a model that is nothing", training(backbone=""), "training.backbone = ''"),
    refused(
        "an option that the model does not take",
        training(backbone_options={"no_such": 1}),
        "backbone_options",
        "no_such",
    ),
    refused(
        "a model for larger images",
        training(backbone="vit_tiny_patch16_224", image_size=33),
        "training.backbone_options",
    ),
    refused("a seed twice", training(seeds=[0, 0]), "training.seeds", "twice"),
    refused("a negative seed", training(seeds=[-1]), "training.seeds.0 = -1"),
    refused("no seed", training(seeds=[]), "training.seeds"),
    refused("no worker", training(num_workers=0), "num_workers = 0"),
    refused("a precision by another name", training(precision="bf16"), "precision = 'bf16'", "'bfloat16'"),
    refused("a logger that is none", training(logger="neptune"), "logger = 'neptune'", "'tensorboard'"),
    refused(
        "shares beyond the whole",
        training(sources=[{"clone": {}, "share": 0.7}, {"clone": {}, "share": 0.7}]),
        "shares add up to 1.4",
    ),
    refused("a source that is nothing", training(sources=[{}]), "training.sources.0", "either"),
    refused(
        "a source with a setting that is none",
        training(sources=[{"clone": {"guidance": 3}}]),
        "sources.0.clone.guidance",
    ),
    refused("a real set that is not there", training(real="imagenet"), "training.real = 'imagenet'", "no such set"),
    refused(
        "a measure of each epoch, and nothing to measure",
        training(validate_epochs=1),
        "validate_epochs",
        "evaluation.validation_set",
    ),
    refused("one class alone", checked("check_training", classes=["cat"], lint="off"), "classes", "two"),
    refused("a set that is unknown", evaluation(test_set="cifar-10"), "evaluation.test_set = 'cifar-10'", "cifar10"),
    refused("a test set of nothing", evaluation(test_set=""), "evaluation.test_set = ''"),
    accepted(
        "a test set twice: measured once",
        evaluation(SETS, test_sets=[f"{HERE}/a", f"{HERE}/a"]),
        is_well,
    ),
    accepted(
        "a transfer set twice: measured once",
        evaluation(SETS, transfer_sets=[f"{HERE}/a", f"{HERE}/a"]),
        is_well,
    ),
    accepted(
        "a transfer set with two numbers of shots",
        evaluation(SETS, transfer_sets=[{"name": f"{HERE}/a", "shots": 1}, {"name": f"{HERE}/a", "shots": 2}]),
        is_well,
    ),
    accepted(
        "a number of shots twice: measured once",
        evaluation(SETS, transfer_sets=[{"name": f"{HERE}/a", "shots": [1, 1]}]),
        is_well,
    ),
    accepted(
        "the test set again among the others: measured once",
        evaluation(SETS, test_set=f"{HERE}/a", test_sets=[f"{HERE}/a"]),
        is_well,
    ),
    refused("no shot", evaluation(SETS, transfer_sets=[{"name": f"{HERE}/a", "shots": 0}]), "shots"),
    refused("no list of shots", evaluation(SETS, transfer_sets=[{"name": f"{HERE}/a", "shots": []}]), "shots"),
    refused("a set without a name", evaluation(test_sets=[{"path": "x"}]), "test_sets.0.name", "required"),
    refused("a set that is nothing", evaluation(test_sets=[None]), "test_sets.0"),
    refused(
        "a path for a set of one's own",
        evaluation(SETS, test_sets=[{"name": f"{HERE}/a", "path": f"{HERE}/b"}]),
        "path",
    ),
    refused("a class map that is a list", mapped("[]"), "class_map", "JSON object"),
    refused("a class map with numbers", mapped('{"cat": 0}'), "class_map", "'cat'"),
    refused("a class map with a comma too many", mapped('{"cat": "cat",}'), "class_map", "JSON"),
    refused("a class map of no byte", mapped(""), "class_map", "JSON"),
    refused(
        "a class map with a class twice",
        mapped('{"cat": "cat", "cat": "dog", "dog": null}'),
        "class_map",
        "'cat'",
        "twice",
    ),
    refused(
        "a class map that is not there",
        evaluation(SETS, test_sets=[{"name": f"{HERE}/a", "class_map": "m.json"}]),
        "class_map",
        "m.json",
    ),
    refused(
        "a class map of a file that is none",
        evaluation(SETS, test_sets=[{"name": f"{HERE}/a", "class_map": ""}]),
        "class_map = ''",
    ),
    refused(
        "no image to choose by", overrides("evaluation.validation_images_per_class=0"), "validation_images_per_class"
    ),
    refused(
        "a probe that is none",
        overrides("evaluation.transfer_sets=[{name: cifar10, probe: {kind: svm}}]"),
        "probe.kind",
        "'svm'",
    ),
    accepted("a sweep of one setting", sweep({"space": WHOLE}), lambda answer: len(answer) == 1),
    refused("a space of nothing", sweep({"space": {}}), "sweep.space", "empty"),
    refused("no value", space(guidance_scale=[]), "sweep.space.generation.guidance_scale", "at least 1"),
    refused("a value twice", space(guidance_scale=[1, 2, 1.0]), "guidance_scale", "twice"),
    refused("a value that is none", space(guidance_scale=[1, None]), "guidance_scale", "None"),
    refused("a value that is not a number", space(guidance_scale=[1, float("nan")]), "guidance_scale"),
    refused("a value alone", space(guidance_scale=2), "guidance_scale = 2", "list"),
    refused("a list as a text", space(guidance_scale="1,2,4"), "guidance_scale = '1,2,4'", "list"),
    refused("a key that is none", space(guidance=[1]), "sweep.space.generation.guidance", "unknown key"),
    refused("a budget in the space", space(images_per_class=[1, 2]), "images_per_class", "rungs"),
    refused("a variant that is none", space(variant=["nmae"]), "'nmae'", "unknown"),
    refused(
        "a section that is none",
        sweep({"space": {"evaluation": {"test_set": ["a"]}}}),
        "sweep.space.evaluation",
        "unknown key",
    ),
    refused(
        "a range upside down",
        sweep(
            {"search": "random", "num_settings": 2, "space": {"generation": {"guidance_scale": {"low": 4, "high": 1}}}}
        ),
        "guidance_scale",
        "low must be below high",
    ),
    refused(
        "a range without an end",
        sweep({"search": "random", "num_settings": 2, "space": {"generation": {"guidance_scale": {"low": 4}}}}),
        "guidance_scale.high",
        "required",
    ),
    refused(
        "a range by other words",
        sweep(
            {"search": "random", "num_settings": 2, "space": {"generation": {"guidance_scale": {"min": 1, "max": 4}}}}
        ),
        "guidance_scale",
        "low",
    ),
    refused(
        "a logarithm of 0",
        sweep(
            {
                "search": "random",
                "num_settings": 2,
                "space": {"training": {"recipe_options": {"learning_rate": {"low": 0, "high": 1, "log": True}}}},
            }
        ),
        "learning_rate",
        "above 0",
    ),
    refused(
        "a step wider than the range",
        sweep(
            {
                "search": "random",
                "num_settings": 2,
                "space": {"generation": {"guidance_scale": {"low": 1, "high": 2, "step": 5}}},
            }
        ),
        "num_settings = 2",
        "hardly more than 1",
    ),
    refused(
        "more settings than there are",
        sweep({"search": "random", "num_settings": 9, "space": {"generation": {"guidance_scale": [1.0, 2.0]}}}),
        "num_settings = 9",
        "fewer",
    ),
    refused("no setting", sweep({"search": "random", "num_settings": 0}), "num_settings"),
    refused("rungs that fall", sweep({"rungs": [100, 50], "scheduler": "halving"}), "sweep.rungs", "rise"),
    refused("a rung twice", sweep({"rungs": [50, 50], "scheduler": "halving"}), "sweep.rungs", "rise"),
    refused("a rung of no image", sweep({"rungs": [0, 50], "scheduler": "halving"}), "sweep.rungs.0"),
    refused("a rung of true", sweep({"rungs": [True, 50], "scheduler": "halving"}), "sweep.rungs.0", "True"),
    refused(
        "a rung with more seeds than there are",
        sweep({"rungs": [{"images_per_class": 200, "num_seeds": 5}]}),
        "num_seeds = 5",
    ),
    refused("a scheduler of other tools", sweep({"scheduler": "hyperband"}), "sweep.scheduler = 'hyperband'", "'asha'"),
    refused("a share to keep of all", sweep({"keep": 1}), "sweep.keep = 1"),
    refused("a metric for the objective", sweep({"objective": "top1"}), "sweep.objective", "'validation'"),
    refused("an objective of nothing", sweep({"objective": {}}), "sweep.objective", "validation"),
    refused("an objective of no weight", sweep({"objective": {"validation": 0}}), "sweep.objective.validation = 0"),
    refused("an objective without its set", sweep({"objective": "transfer"}), "sweep.objective", "transfer"),
    refused("no trial at a time", sweep({"max_concurrent_trials": 0}), "max_concurrent_trials = 0"),
    refused(
        "extra trials with several workers each", sweep({"extra_trials": 2}), "sweep.extra_trials = 2", "num_workers: 1"
    ),
    refused("proxies without anything to compare in", sweep({"proxies": True}), "sweep.proxies", "analysis.model"),
    refused("a report of nothing", command("report", "storage=runs"), "storage", "no results"),
    refused(
        "a report of a storage that is no folder",
        command("report", "storage=x", files={"x": "x"}),
        "storage",
        "is a file",
    ),
    refused("an analysis of nothing", command("analyze", "storage=runs", "classes=[cat,dog]"), "raysd generate"),
    refused(
        "a training on a clone that is not there",
        command("train", "storage=runs"),
        "images_per_class",
        "raysd generate",
    ),
    refused("an evaluation on nothing", command("evaluate", "storage=runs"), "images_per_class", "raysd generate"),
    refused(
        "an export of a clone that is not there",
        command("export", "storage=runs"),
        "images_per_class",
        "raysd generate",
    ),
    refused("scores of a clone that is not there", command("score", "storage=runs"), "raysd generate"),
    refused(
        "a real set for training that is empty",
        checked("checked_run", {"e/cat/x": None}, **OWN, training={"real": f"{HERE}/e"}),
        "no image",
    ),
    refused(
        "a real set with too few images",
        checked("checked_run", SETS, **OWN, training={"real": f"{HERE}/a"}),
        "100 are wanted",
    ),
    refused(
        "one set to train on and to test",
        checked(
            "checked_run",
            SETS,
            **OWN,
            generation={"images_per_class": 1},
            training={"real": f"{HERE}/a"},
            evaluation={"test_set": f"{HERE}/a"},
        ),
        "evaluation.test_set",
        "trained on",
    ),
    refused(
        "one set under two names",
        checked(
            "checked_run",
            {**SETS, "c.parquet": image_parquet(["cat", "dog"])},
            **OWN,
            generation={"images_per_class": 1},
            training={"real": f"{HERE}/a"},
            evaluation={"test_set": f"{HERE}/b"},
        ),
        "evaluation.test_set",
        "trained on",
    ),
    accepted(
        "two sets with other images",
        checked(
            "checked_run",
            {**SETS, "c/cat/1.png": image(99), "c/dog/1.png": image(120)},
            **OWN,
            generation={"images_per_class": 1},
            training={"real": f"{HERE}/a"},
            evaluation={"test_set": f"{HERE}/c"},
        ),
        lambda run: run.num_classes == 2,
    ),
]
