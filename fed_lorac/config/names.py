"""The names a setting may take. Knows words; not what they do. Tests hold each tuple equal to its room's registry."""

__all__ = [
    "AUGMENTS",
    "BATCH_NORMS",
    "CIFAR_MODELS",
    "DEALS",
    "DEVICES",
    "DOWNLOADABLE",
    "ENGINES",
    "FLEET_DEVICES",
    "LABEL_SKEWS",
    "LINK_ASSIGNMENTS",
    "NORMS",
    "OF_ANY_SIZE",
    "OWN_CAMERAS",
    "POOLS",
    "PRECISIONS",
    "RESIZES",
    "SCHEDULES",
    "SEVERITIES",
    "SHORTCUTS",
    "STEMS",
    "STREAMS",
    "TRAINING_STATISTICS",
    "WEATHER_SCHEDULES",
    "WEIGHTS",
    "WEIGHT_FILES",
    "WITHOUT_FILES",
]

PRECISIONS = ("auto", "fp32", "bf16")
ENGINES = ("fleet", "flower")
POOLS = ("ray", "threads")
DEVICES = ("auto", "cpu", "cuda")

CIFAR_MODELS = ("resnet8", "resnet14", "resnet20", "resnet32", "resnet56")
STEMS = ("cifar", "native")
NORMS = ("batch", "group")
SHORTCUTS = ("projection", "identity")
WEIGHTS = ("shipped", "none", "pretrain", "imagenet")
WEIGHT_FILES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".tar", ".th", ".pkl")

DOWNLOADABLE = ("cifar10", "cifar100")
OWN_CAMERAS = ("cameras", "traffic-signs")  # data sets whose cameras keep their own images
OF_ANY_SIZE = ("folder", *OWN_CAMERAS)  # data sets whose files need not be square
RESIZES = ("squeeze", "crop")
WITHOUT_FILES = ("digits",)

SEVERITIES = ("1", "2", "3", "4", "5")
DEALS = ("disjoint", "overlapping")
LABEL_SKEWS = ("iid", "dirichlet")
WEATHER_SCHEDULES = ("constant", "front", "daily", "walk")
STREAMS = ("iid", "correlated", "time")
LINK_ASSIGNMENTS = ("round_robin", "random")
FLEET_DEVICES = ("ideal", "limited")

SCHEDULES = ("cosine", "constant")
AUGMENTS = (
    "reflect_flip",
    "reflect_flip_light",
    "reflect_flip_cutout_light",
    "crop_flip",
    "crop",
    "crop_flip_cutout",
    "none",
)
BATCH_NORMS = ("local", "frozen", "shared")
TRAINING_STATISTICS = ("batch", "fixed")
