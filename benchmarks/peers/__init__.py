"""The arms of `fleet_vs_peers`: one scenario under FleetGrid, and as a careful user of each other framework writes it.

`fleetgrid` is the product. `flower`, `blazefl` and `pfl` share a network, a training step, evaluations and images
(`network`, `turn`, `settings`), of which nothing is the product's but the network's definition; what differs is who
asks the cameras, where they run and how their parameters travel. `python -m peers NAME` is one arm, whole.

| arm | cameras run in | way there and back |
|---|---|---|
| `flower` | Ray's workers, one process each, under Flower's simulation runtime | messages, serialised |
| `blazefl` | threads of one process, the mode that BlazeFL recommends | none: one memory |
| `pfl` | processes that each hold the server's model, as pfl's guide starts them | one all-reduce a round |

BlazeFL's threads want a Python without a GIL. Where there is one, they still took half the time of its processes, which
it starts anew for each round (ResNet-20, 2 cores).

Careful: one model a worker and one copy of a camera's images, normalised once; batches cut and mirrored at once rather
than image by image; one thread a worker; precision and memory format by what is faster here; no evaluation that nobody
asked for; batch-norm statistics stay with the camera.

What loralib's ConvLoRA is, as read in 0.1.2 (https://pypi.org/project/loralib/):

- its rank is r*K: A (r*K, in*K) and B (out*K, r*K), so R = 2 rows, which LoRA-C's `rank_mode = "r"` has, do not exist
  for a 3 x 3 kernel. r = 1 (R = 3 there, 1 for a 1 x 1) is nearest: 12,880 trained numbers against 9,136 on ResNet-20.
  The time of a step hangs on it by less than a per cent: both multiply out a dense W + B A;
- it wraps the convolution: "<name>.weight" becomes "<name>.conv.weight", which a checkpoint must be renamed to;
- `eval()` merges B A into the weight and `train()` takes it out again, in float32, so that a parameter that is loaded
  while merged is lost into the weight: load in training mode only;
- the step forms the gradient of the dense W + B A.
"""
