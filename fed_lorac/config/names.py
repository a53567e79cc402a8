"""The names a setting may take. Knows words; not what they do. Tests hold each tuple equal to its room's registry."""

__all__ = [
    "AUGMENTS",
    "BATCH_NORMS",
    "CIFAR_MODELS",
    "CODECS",
    "CORRUPTIONS",
    "DATASETS",
    "DEVICES",
    "DOWNLOADABLE",
    "ENGINES",
    "LABEL_SKEWS",
    "LINKS",
    "LINK_ASSIGNMENTS",
    "LOSSLESS",
    "MODELS",
    "NORMS",
    "PRECISIONS",
    "SCHEDULES",
    "SEVERITIES",
    "SHORTCUTS",
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

SCHEDULES = ("cosine", "constant")
AUGMENTS = ("reflect_flip", "crop_flip", "crop", "crop_flip_cutout", "none")
BATCH_NORMS = ("local", "frozen", "shared")
TRAINING_STATISTICS = ("batch", "fixed")
CODECS = ("fp32", "fp16", "bf16", "int8", "int4", "drive", "topk")
LOSSLESS = ("fp32",)
