"""Numbers, sizes, types and devices of a generation."""

from odd_inputs.doing import overrides, planned
from odd_inputs.row import accepted, refused


def generation(**values):
    """Plan a clone with these settings of the generation."""
    return planned(generation=values, lint="off")


ROWS = [
    refused("a guidance scale of 0", generation(guidance_scale=0), "generation.guidance_scale = 0", "1"),
    refused("a huge guidance scale", generation(guidance_scale=1e9), "guidance_scale", "100"),
    refused("a guidance scale that is a text", generation(guidance_scale="high"), "guidance_scale = 'high'", "number"),
    accepted("a guidance scale of 1", generation(guidance_scale=1), lambda plan: plan.clone.spec.guidance_scale == 1),
    accepted(
        "a number as a text", generation(guidance_scale="7.5"), lambda plan: plan.clone.spec.guidance_scale == 7.5
    ),
    refused("an interval upside down", generation(guidance_interval=[1, 0]), "guidance_interval", "below"),
    refused("an interval in steps", generation(guidance_interval=[0, 10]), "guidance_interval", "1"),
    refused("one end of an interval", generation(guidance_interval=[0.5]), "guidance_interval"),
    refused("an interval that is not a number", generation(guidance_interval=[float("nan"), 1]), "guidance_interval"),
    refused("no step", generation(num_inference_steps=0), "num_inference_steps = 0", "1"),
    refused("a million steps", generation(num_inference_steps=1_000_000), "num_inference_steps", "1000"),
    refused("a size that is no multiple of 8", generation(image_size=30), "generation.image_size = 30", "multiple"),
    refused("a size of two sides", generation(image_size="512x512"), "image_size = '512x512'", "whole number"),
    refused("a list of two sides", generation(image_size=[512, 768]), "image_size", "whole number"),
    refused("a negative size", generation(image_size=-512), "image_size = -512", "8"),
    refused("a size without end", generation(image_size=float("inf")), "image_size"),
    refused("stored images larger than those generated", generation(stored_size=64), "stored_size = 64", "32"),
    refused("a type by another name", generation(dtype="fp16"), "dtype = 'fp16'", "'float16'"),
    refused("a type of torch", generation(dtype="torch.float16"), "dtype = 'torch.float16'", "'float16'"),
    refused("a codec by its suffix", generation(codec="jpg"), "codec = 'jpg'", "'jpeg'"),
    refused("a color as CSS has it", generation(color="grey scale"), "color = 'grey scale'", "'gray'"),
    refused("a negative seed", generation(seed=-1), "generation.seed = -1", "0"),
    refused("a seed that is a text", generation(seed="random"), "generation.seed = 'random'", "whole number"),
    refused("a seed of nothing", generation(seed=None), "generation.seed = None", "whole number"),
    accepted("the largest seed", generation(seed=2**63 - 1), lambda plan: plan.clone.spec.seed == 2**63 - 1),
    refused("a seed twice", generation(seeds=[1, 1]), "generation.seeds", "twice"),
    refused("true for a seed", generation(seeds=[True]), "generation.seeds.0 = True"),
    refused("true for a number of images", generation(images_per_class=True), "images_per_class = True"),
    refused(
        "more images than any disk holds", generation(images_per_class=10**15), "images_per_class", "1000000000000000"
    ),
    refused("more images than a number holds", generation(images_per_class=10**30), "images_per_class"),
    refused("more images of a class than a number holds", generation(class_counts={"bag": 10**30}), "class_counts"),
    refused(
        "no image of any class", planned(classes=["a"], generation={"class_counts": {"a": 0}}), "class_counts", "0"
    ),
    refused("a negative number of images", generation(class_counts={"bag": -1}), "class_counts", "-1"),
    refused("a share of dropped images in percent", generation(max_dropped_share=5), "max_dropped_share = 5", "1"),
    refused("shards of no image", generation(images_per_shard=0), "images_per_shard = 0", "1"),
    refused("a batch of no image", generation(batch_size=0), "batch_size = 0", "1"),
    refused("no actor", generation(num_actors=0), "num_actors = 0", "1"),
    refused("more actors at the start than in the end", generation(num_actors=2, min_actors=3), "min_actors"),
    refused("one GPU and a half", generation(gpus_per_actor=1.5), "gpus_per_actor = 1.5", "1 or 2"),
    refused("a device", planned(generation={"device": "cuda:0"}), "generation.device = 'cuda:0'", "unknown key"),
    refused(
        "options of a scheduler that are nested", generation(scheduler_options={"a": {"b": 1}}), "scheduler_options.a"
    ),
    refused(
        "an option that the scheduler does not have",
        generation(scheduler_options={"no_such": 1}),
        "scheduler_options",
        "no_such",
    ),
    refused(
        "an option of the scheduler that is not a number",
        generation(scheduler_options={"beta_start": float("nan")}),
        "scheduler_options",
        "nan",
    ),
    refused(
        "an option of the scheduler that is a text",
        generation(scheduler_options={"beta_start": "low"}),
        "scheduler_options",
        "low",
    ),
    refused(
        "timesteps of a scheduler that are none",
        generation(scheduler_options={"num_train_timesteps": 0}),
        "scheduler_options",
    ),
    refused("a cache of steps that is true", generation(step_cache=True), "step_cache = True", "{key: value}"),
    refused("a cache of no step", generation(step_cache={"interval": 0}), "step_cache.interval = 0", "1"),
    refused("a price that is negative", overrides("cost.price_per_hour={A100: -1}"), "price_per_hour.A100 = -1"),
    refused("a price for all", overrides("cost.price_per_hour=2"), "price_per_hour = 2", "{key: value}"),
    refused("a cluster of negative GPUs", overrides("cluster.gpus=-1"), "cluster.gpus = -1"),
    refused("no minute to wait", overrides("cluster.wait_minutes=0"), "cluster.wait_minutes = 0"),
    refused("a template of scores that is empty", overrides("scoring.template="), "scoring.template"),
    refused("a filter in percent", overrides("training.filters.best_share=50"), "filters.best_share = 50", "1"),
    refused("a filter of no image", overrides("training.filters.best_share=0"), "filters.best_share = 0"),
    refused("a correlation beyond 1", overrides("training.filters.max_duplicate=1.5"), "max_duplicate = 1.5", "1"),
    refused("a similarity that is not a number", overrides("training.filters.min_similarity=.nan"), "min_similarity"),
    refused("a filter that is none", overrides("training.filters.min_score=1"), "filters.min_score = 1", "unknown key"),
]
