"""Everything that a config can name, as the text "module:Name" of what it stands for. Knows text alone.

A built-in part is its file and one line here. A part of another package is named by an entry point of the group that
stands beside each table, or as "module:Name" itself.
"""

from fed_lorac.runtime.kind import Kind, load

__all__ = [
    "ADAPTERS",
    "AGGREGATORS",
    "CODECS",
    "CORRUPTIONS",
    "DATASETS",
    "LINKS",
    "LOGS",
    "MODELS",
    "OBJECTIVES",
    "SERVER_OPTIMIZERS",
    "STRATEGIES",
    "Kind",
    "load",
]

ADAPTERS = Kind(
    {
        "lora-c": "fed_lorac.adapters.lora_c:LoraC",
        "lorae": "fed_lorac.adapters.lorae:Lorae",
        "conv-lora": "fed_lorac.adapters.conv_lora:ConvLora",
        "ffa-lora-c": "fed_lorac.adapters.ffa_lora_c:FfaLoraC",
        "aad": "fed_lorac.adapters.aad:AdditiveDecomposition",
        "filter-atoms": "fed_lorac.adapters.filter_atoms:FilterAtoms",
        "lora-xs": "fed_lorac.adapters.lora_xs:LoraXs",
        "vera-b": "fed_lorac.adapters.vera_b:VeraB",
        "subspace": "fed_lorac.adapters.subspace:Subspace",
        "mask": "fed_lorac.adapters.mask:Mask",
        "norm-affine": "fed_lorac.adapters.norm_affine:NormAffine",
        "atp": "fed_lorac.adapters.atp:Atp",
        "linear-probe": "fed_lorac.adapters.linear_probe:LinearProbe",
        "full": "fed_lorac.adapters.full:FullFineTuning",
    },
    "fed_lorac.adapters",
    "class",
    "an adapter of your own is a class that extends fed_lorac.adapters.adapter.Adapter, or one of its kinds",
    "fed_lorac.adapters.adapter:Adapter",
    also={"bn-affine": "norm-affine"},
    joined="fed_lorac.adapters.parts:Parts",
)

OBJECTIVES = Kind(
    {
        "labels": "fed_lorac.training.objectives.objective:Labels",
        "entropy": "fed_lorac.training.objectives.entropy:Entropy",
        "entropy-filtered": "fed_lorac.training.objectives.entropy_filtered:EntropyFiltered",
        "pseudo-label": "fed_lorac.training.objectives.pseudo_label:PseudoLabel",
        "consistency": "fed_lorac.training.objectives.consistency:Consistency",
        "mixed": "fed_lorac.training.objectives.mixed:Mixed",
    },
    "fed_lorac.objectives",
    "class",
    "an objective of your own is a class that extends fed_lorac.training.objectives.objective.Objective",
    "fed_lorac.training.objectives.objective:Objective",
)

STRATEGIES = Kind(
    {
        "merged": "fed_lorac.strategies:MergedFedAvg",
        "fedavg": "fed_lorac.strategies:FedAvg",
        "factor-fedavg": "fed_lorac.strategies:FactorFedAvg",
        "flora": "fed_lorac.strategies:Flora",
        "flexlora": "fed_lorac.strategies:FlexLora",
        "rotating-basis": "fed_lorac.strategies:RotatingBasis",
        "zeroth-order": "fed_lorac.strategies:ZerothOrder",
        "clustered": "fed_lorac.strategies:ClusteredFedAvg",
        "local-only": "fed_lorac.strategies:LocalOnly",
        "zero-byte": "fed_lorac.strategies:ZeroByte",
    },
    "fed_lorac.strategies",
    "class",
    "a strategy of your own is a class that extends fed_lorac.server.strategy.Strategy",
    "fed_lorac.server.traits:Traits",
)

AGGREGATORS = Kind(
    {
        "mean": "fed_lorac.aggregation.aggregators:Mean",
        "clipped": "fed_lorac.aggregation.aggregators:ClippedMean",
        "median": "fed_lorac.aggregation.aggregators:Median",
        "trimmed": "fed_lorac.aggregation.aggregators:TrimmedMean",
        "krum": "fed_lorac.aggregation.aggregators:Krum",
    },
)

SERVER_OPTIMIZERS = Kind(
    {
        "sgd": "fed_lorac.aggregation.server_optimizers:Sgd",
        "momentum": "fed_lorac.aggregation.server_optimizers:Momentum",
        "adam": "fed_lorac.aggregation.server_optimizers:Adam",
        "yogi": "fed_lorac.aggregation.server_optimizers:Yogi",
    },
)

MODELS = Kind(
    {
        "resnet8": "fed_lorac.models.cifar_resnet:resnet8",
        "resnet14": "fed_lorac.models.cifar_resnet:resnet14",
        "resnet20": "fed_lorac.models.cifar_resnet:resnet20",
        "resnet32": "fed_lorac.models.cifar_resnet:resnet32",
        "resnet56": "fed_lorac.models.cifar_resnet:resnet56",
    },
    "fed_lorac.models",
    "function",
    "a model of your own is called as (num_classes, **settings) and gives an nn.Module for images (N, 3, H, W)",
    given=("num_classes",),
    library="fed_lorac.models.libraries:Libraries",
)

DATASETS = Kind(
    {
        "cifar10": "fed_lorac.data.datasets:cifar10",
        "cifar100": "fed_lorac.data.datasets:cifar100",
        "folder": "fed_lorac.data.datasets:folder",
        "cameras": "fed_lorac.data.camera_sets:cameras",
        "traffic-signs": "fed_lorac.data.camera_sets:traffic_signs",
        "digits": "fed_lorac.data.datasets:digits",
        "cifar10c": "fed_lorac.data.datasets:cifar10c",
    },
    "fed_lorac.datasets",
    "function",
    "a data set of your own is called as (root, image_size, **settings) and gives fed_lorac.data.dataset.Images",
    given=("root", "image_size"),
)

# CIFAR-10-C's nineteen (Hendrycks & Dietterich 2019, arXiv 1903.12261), the four extra ones last.
CORRUPTIONS = Kind(
    {
        "gaussian_noise": "fed_lorac.data.corruptions.noise:gaussian_noise",
        "shot_noise": "fed_lorac.data.corruptions.noise:shot_noise",
        "impulse_noise": "fed_lorac.data.corruptions.noise:impulse_noise",
        "defocus_blur": "fed_lorac.data.corruptions.blur:defocus_blur",
        "glass_blur": "fed_lorac.data.corruptions.blur:glass_blur",
        "motion_blur": "fed_lorac.data.corruptions.blur:motion_blur",
        "zoom_blur": "fed_lorac.data.corruptions.blur:zoom_blur",
        "snow": "fed_lorac.data.corruptions.weather:snow",
        "frost": "fed_lorac.data.corruptions.weather:frost",
        "fog": "fed_lorac.data.corruptions.weather:fog",
        "brightness": "fed_lorac.data.corruptions.weather:brightness",
        "contrast": "fed_lorac.data.corruptions.digital:contrast",
        "elastic_transform": "fed_lorac.data.corruptions.digital:elastic_transform",
        "pixelate": "fed_lorac.data.corruptions.digital:pixelate",
        "jpeg_compression": "fed_lorac.data.corruptions.digital:jpeg_compression",
        "speckle_noise": "fed_lorac.data.corruptions.noise:speckle_noise",
        "gaussian_blur": "fed_lorac.data.corruptions.blur:gaussian_blur",
        "spatter": "fed_lorac.data.corruptions.weather:spatter",
        "saturate": "fed_lorac.data.corruptions.digital:saturate",
    },
    "fed_lorac.corruptions",
    "function",
    "a corruption of your own is called as (images, severity, rng, **settings) and gives images, uint8 (N, H, W, 3)",
    given=("images", "severity", "rng"),
)

CODECS = Kind(
    {
        "fp32": "fed_lorac.wire.codecs.codecs:FP32",
        "fp16": "fed_lorac.wire.codecs.codecs:FP16",
        "bf16": "fed_lorac.wire.codecs.codecs:BF16",
        "int8": "fed_lorac.wire.codecs.codecs:INT8",
        "int4": "fed_lorac.wire.codecs.codecs:INT4",
        "int2": "fed_lorac.wire.codecs.codecs:INT2",
        "ternary": "fed_lorac.wire.codecs.codecs:TERNARY",
        "bernoulli": "fed_lorac.wire.codecs.codecs:BERNOULLI",
        "drive": "fed_lorac.wire.codecs.codecs:DRIVE",
        "topk": "fed_lorac.wire.codecs.codecs:TOPK",
    },
    "fed_lorac.codecs",
    "value",
    "a codec of your own is a fed_lorac.wire.codecs.codecs.Codec with a code from 128 to 255, or gives one",
    "fed_lorac.wire.codecs.codecs:Codec",
)

LINKS = Kind(
    {
        "lorawan-dr0": "fed_lorac.radio.lorawan:DR0",
        "lorawan-dr1": "fed_lorac.radio.lorawan:DR1",
        "lorawan-dr2": "fed_lorac.radio.lorawan:DR2",
        "lorawan-dr3": "fed_lorac.radio.lorawan:DR3",
        "lorawan-dr4": "fed_lorac.radio.lorawan:DR4",
        "lorawan-dr5": "fed_lorac.radio.lorawan:DR5",
        "nb-iot-nb1": "fed_lorac.radio.cellular:NB1",
        "nb-iot-nb2": "fed_lorac.radio.cellular:NB2",
        "lte-m": "fed_lorac.radio.cellular:LTE_M",
        "lte-cat-1": "fed_lorac.radio.cellular:LTE_CAT_1",
        "4g": "fed_lorac.radio.cellular:LTE_4G",
        "wifi": "fed_lorac.radio.wifi:WIFI",
    },
    "fed_lorac.links",
    "value",
    "a link of your own is a fed_lorac.radio.link.Link, or gives one",
    "fed_lorac.radio.link:Link",
)

LOGS = Kind(
    {
        "tensorboard": "fed_lorac.reporting.logs.tensorboard:TensorBoard",
        "wandb": "fed_lorac.reporting.logs.wandb:WeightsAndBiases",
        "mlflow": "fed_lorac.reporting.logs.mlflow:MLflow",
    },
    "fed_lorac.logs",
    "class",
    "a log of your own is a class that extends fed_lorac.reporting.watch.Watch",
    "fed_lorac.reporting.watch:Watch",
    declared={},
)
