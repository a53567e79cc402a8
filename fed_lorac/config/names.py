"""The names a setting may take. Knows words; not what they do. Tests hold each tuple equal to its room's registry."""

__all__ = [
    "ACCEPTED",
    "ADAPTERS",
    "AGGREGATORS",
    "AUGMENTS",
    "BATCH_NORMS",
    "CIFAR_MODELS",
    "CODECS",
    "CORRUPTIONS",
    "DATASETS",
    "DEVICES",
    "DOWNLINKS",
    "DOWNLOADABLE",
    "DRAW_ANEW",
    "ENGINES",
    "EXPANDED",
    "FACTORED",
    "FIXED_BASIS",
    "GROUPED",
    "GROUPINGS",
    "LABEL_SKEWS",
    "LINEAR",
    "LINKS",
    "LINK_ASSIGNMENTS",
    "LOSSLESS",
    "MODELS",
    "NORMS",
    "ONE_RANK",
    "PRECISIONS",
    "RANKED",
    "RANK_MODES",
    "SCHEDULES",
    "SEND_STATES",
    "SERVER_OPTIMIZERS",
    "SEVERITIES",
    "SHORTCUTS",
    "SILENT",
    "STRATEGIES",
    "STREAMS",
    "TORCHVISION_MODELS",
    "TRAINING_STATISTICS",
    "WEATHER_SCHEDULES",
    "WEIGHTS",
    "WEIGHT_FILES",
]

PRECISIONS = ("auto", "fp32", "bf16")
ENGINES = ("fleet", "flower")
DEVICES = ("auto", "cpu", "cuda")

CIFAR_MODELS = ("resnet8", "resnet14", "resnet20", "resnet32", "resnet56")
TORCHVISION_MODELS = ("resnet18", "resnet34", "resnet50", "resnet101")
MODELS = CIFAR_MODELS + TORCHVISION_MODELS
NORMS = ("batch", "group")
SHORTCUTS = ("projection", "identity")
WEIGHTS = ("shipped", "none", "pretrain", "imagenet")
WEIGHT_FILES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".tar", ".th", ".pkl")

DOWNLOADABLE = ("cifar10", "cifar100")
DATASETS = (*DOWNLOADABLE, "folder", "digits", "cifar10c")

# CIFAR-10-C's nineteen (Hendrycks & Dietterich 2019, arXiv 1903.12261), the four extra ones last.
CORRUPTIONS = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
    "speckle_noise",
    "gaussian_blur",
    "spatter",
    "saturate",
)
SEVERITIES = ("1", "2", "3", "4", "5")
LABEL_SKEWS = ("iid", "dirichlet")
WEATHER_SCHEDULES = ("constant", "front", "daily", "walk")
STREAMS = ("iid", "correlated")
LINK_ASSIGNMENTS = ("round_robin", "random")
LINKS = (
    "lorawan-dr0",
    "lorawan-dr1",
    "lorawan-dr2",
    "lorawan-dr3",
    "lorawan-dr4",
    "lorawan-dr5",
    "nb-iot-nb1",
    "nb-iot-nb2",
    "lte-m",
    "lte-cat-1",
    "4g",
)

FACTORED = ("lora-c", "lorae", "conv-lora")
# What their states say means the same in every round, under any strategy.
FIXED_BASIS = ("ffa-lora-c", "aad", "filter-atoms", "bn-affine", "linear-probe", "full")
ADAPTERS = (*FACTORED, "ffa-lora-c", "aad", "filter-atoms", "bn-affine", "linear-probe", "full")
RANKED = (*FACTORED, "ffa-lora-c", "aad")
RANK_MODES = ("auto", "r*k", "r")
SCHEDULES = ("cosine", "constant")
AUGMENTS = ("reflect_flip", "crop_flip", "crop", "crop_flip_cutout", "none")
BATCH_NORMS = ("local", "frozen", "shared")
TRAINING_STATISTICS = ("batch", "fixed")
# Their states are expanded: a frozen part that both ends know is put back.
EXPANDED = ("ffa-lora-c", "aad", "filter-atoms")
LINEAR = (*EXPANDED, "bn-affine", "linear-probe", "full")
STRATEGIES = (
    "merged",
    "fedavg",
    "factor-fedavg",
    "flora",
    "flexlora",
    "rotating-basis",
    "clustered",
    "local-only",
    "zero-byte",
)
# Which adapters each can average.
ACCEPTED = {
    "merged": tuple(method for method in ADAPTERS if method != "full"),
    "factor-fedavg": FACTORED,
    "rotating-basis": ("lora-c", "ffa-lora-c", "aad"),
    "fedavg": LINEAR,
    "flora": FACTORED,
    "flexlora": FACTORED,
    "clustered": tuple(method for method in ADAPTERS if method != "full"),
    "local-only": ADAPTERS,
    "zero-byte": ADAPTERS,
}
# Every turn begins with factors that are drawn anew, the same for all cameras.
DRAW_ANEW = ("merged", "flora", "clustered")
# A camera's own part of the network is a change that its group has beneath; elsewhere it is the adapter it trains on.
GROUPED = ("clustered",)
# They average factors tensor by tensor, and so of cameras of one rank only.
ONE_RANK = ("factor-fedavg", "rotating-basis")
# Nothing crosses the radio.
SILENT = ("local-only", "zero-byte")
GROUPINGS = ("weather", "similarity")
# Their updates are means of states, which both ends expand; the others' are changes.
SEND_STATES = ("rotating-basis", "fedavg")
AGGREGATORS = ("mean", "clipped", "median", "trimmed", "krum")
SERVER_OPTIMIZERS = ("sgd", "momentum", "adam", "yogi")
DOWNLINKS = ("svd", "stack", "dense")
CODECS = ("fp32", "fp16", "bf16", "int8", "int4", "drive", "topk")
LOSSLESS = ("fp32",)
