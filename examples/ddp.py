"""A contractive flow on digits trained by several processes, which average their gradients (DistributedDataParallel).

    torchrun --nproc-per-node 2 examples/ddp.py --steps 100

On GPUs each process takes the device of its local rank and the backend is NCCL; on CPUs it is gloo.
"""

import argparse
import os

import torch
import torch.distributed as dist
from digits import dequantised, digits
from plain_loop import CONFIG

import acf


def main(steps: int, batch_size: int, folder: str) -> None:
    """Train for so many steps, with a batch of `batch_size` images in each process, and write the flow to a folder."""
    on_gpu = torch.cuda.is_available()
    dist.init_process_group("nccl" if on_gpu else "gloo")
    rank, processes = dist.get_rank(), dist.get_world_size()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    torch.manual_seed(0)  # the same weights everywhere; the wrapper would copy those of the first process anyway
    model = acf.DataParallelFlow(acf.build(CONFIG).to(device).train())
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    images = digits()[0]
    torch.manual_seed(1 + rank)  # each process draws images and noise of its own
    for step in range(1, steps + 1):
        batch = images[torch.randint(len(images), (batch_size,))]
        # Through the model, not through the flow: only so are gradients averaged.
        loss = -model.log_prob(dequantised(batch).to(device)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        model.renormalise()  # the same in every process, as the weights are
        if rank == 0 and (step % 50 == 0 or step == steps):
            print(f"step {step}: {loss.item():.2f} nats on the first of {processes} processes", flush=True)

    norms = torch.stack([parameter.detach().double().norm() for parameter in model.parameters()])
    largest, smallest = norms.clone(), norms.clone()
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    dist.all_reduce(smallest, dist.ReduceOp.MIN)
    if rank == 0:
        print(f"largest difference of weights' norms between processes: {float((largest - smallest).max()):.1e}")
        flow = model.flow.eval()
        print(f"proven Lipschitz constant of the worst block: {acf.tighten(flow).worst:.4f}")
        acf.save(flow, folder)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--folder", default="digits-flow")
    arguments = parser.parse_args()
    main(arguments.steps, arguments.batch_size, arguments.folder)
