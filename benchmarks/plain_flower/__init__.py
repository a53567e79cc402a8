"""The other arm of `fleet_vs_flower`: the same scenario as a careful user of Flower would write it today.

Nothing of the product's but the network's definition: Flower's ClientApp and ServerApp under its own simulation runtime
on Ray, `loralib`'s ConvLoRA (https://pypi.org/project/loralib/), float32, a training loop of its own, FedAvg over the
trained tensors, batch-norm statistics kept in the node's state. Careful: one model and one copy of a camera's images
per worker process, images normalised once, batches cut and mirrored at once rather than image by image, memory format
by what is faster, one thread a worker, no evaluation that nobody asked for.

What ConvLoRA is, as read in loralib 0.1.2:

- its rank is r*K: A (r*K, in*K) and B (out*K, r*K), so R = 2 rows, which LoRA-C's `rank_mode = "r"` has, do not exist
  for a 3 x 3 kernel. r = 1 (R = 3 there, 1 for a 1 x 1) is nearest: 12,880 trained numbers against 9,136 on ResNet-20.
  The time of a step hangs on it by less than a per cent: both multiply out a dense W + B A;
- it wraps the convolution: "<name>.weight" becomes "<name>.conv.weight", which a checkpoint must be renamed to;
- `eval()` merges B A into the weight and `train()` takes it out again, in float32, so that a parameter that is loaded
  while merged is lost into the weight: load in training mode only;
- the step forms the gradient of the dense W + B A.
"""
