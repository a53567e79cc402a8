"""What tables say of each method in words. Knows names alone; tests hold them equal to the registries."""

__all__ = ["CODEC_WORDS", "FORM_WORDS", "WAY_WORDS"]

FORM_WORDS = {
    "": "",
    "r": "`rank_mode` `r`",
    "r*k": "`rank_mode` `r*k`",
    "kernel-wise": "`kernel_wise`",
    "m1": "`m1` 3",
}
"""A form -> the settings that make it."""

WAY_WORDS = {"": "", "svd": "`svd`", "stack": "`stack`", "dense": "`dense`"}
"""A way down -> the setting that chooses it."""

CODEC_WORDS = {
    "fp32": "32",
    "fp16": "16",
    "bf16": "16",
    "int8": "8 + 32 g/n",
    "int4": "4 + 32 g/n (an odd value out takes a whole byte)",
    "int2": "2 + 32 g/n (up to a whole byte)",
    "ternary": "1.6 + 16 g/n (five values a byte)",
    "bernoulli": "1.6 (five values a byte)",
    "drive": "N/n + 32 b/n, and 64 bits a frame",
    "topk": "32 k/n + min(1, k/n ceil(log2 n)), and 32 bits a frame",
}
"""codec.up and codec.down -> bits per value of a tensor with n values; letters as in docs/codecs.md."""
