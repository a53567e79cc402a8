"""What tables say of each method in words. Knows names alone; tests hold them equal to the registries."""

__all__ = ["ADAPTER_WORDS", "CODEC_WORDS", "FORM_WORDS", "STRATEGY_WORDS", "WAY_WORDS"]

ADAPTER_WORDS = {
    "lora-c": "two thin factors a convolution, whose product is its change",
    "lorae": "r filters and a 1x1 mapper a convolution",
    "conv-lora": "the same, scaled: the LoRA convolution of PEFT and FLoCoRA",
    "ffa-lora-c": "LoRA-C's second factor; the first is drawn from the seed and stays",
    "aad": "two factors, each beside a frozen one: twice LoRA-C's rank for its bytes",
    "filter-atoms": "the few small kernels that a convolution's kernels are sums of",
    "bn-affine": "batch norm's weights and biases",
    "linear-probe": "the classifier alone",
    "full": "every parameter",
}
"""adapter.method -> what a camera trains."""

FORM_WORDS = {
    "": "",
    "r": "`rank_mode` `r`",
    "r*k": "`rank_mode` `r*k`",
    "kernel-wise": "`kernel_wise`",
    "m1": "`atoms_m1` 3",
}
"""A form -> the settings that make it."""

STRATEGY_WORDS = {
    "merged": "averages the changes that cameras' states stand for",
    "factor-fedavg": "averages each factor by itself: the naive control",
    "flora": "sends all cameras' factors side by side, whose product is the mean",
    "flexlora": "averages the products; each camera gets factors of its own rank",
    "rotating-basis": "averages one factor; the other is drawn anew each round by both ends",
    "fedavg": "averages what cameras send, where the delta is linear in it; of every parameter: what the others' bytes "
    "are measured against",
    "clustered": "as `merged`, and a change more for each cluster of cameras",
    "local-only": "does nothing: each camera trains on and keeps what it has learnt",
    "zero-byte": "does nothing, and nothing is trained: local batch norm alone",
}
"""strategy.name -> what the server does."""

WAY_WORDS = {"": "", "svd": "`svd`", "stack": "`stack`", "dense": "`dense`"}
"""A way down -> the setting that chooses it."""

CODEC_WORDS = {
    "fp32": "32",
    "fp16": "16",
    "bf16": "16",
    "int8": "8 + 32 g/n",
    "int4": "4 + 32 g/n (an odd value out takes a whole byte)",
    "drive": "N/n + 32 b/n, and 64 bits a frame",
    "topk": "32 k/n + min(1, k/n ceil(log2 n)), and 32 bits a frame",
}
"""codec.up and codec.down -> bits per value of a tensor with n values; letters as in docs/codecs.md."""
