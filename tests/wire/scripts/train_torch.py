"""A user's PyTorch script for several hosts: each trains on its part of the rows."""

import argparse
import os

import torch
import torch.distributed
from torch.nn.parallel import DistributedDataParallel

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--learning-rate", type=float, default=0.5)
    parser.add_argument("--model-dir", default=os.environ["SM_MODEL_DIR"])
    arguments = parser.parse_args()
    torch.distributed.init_process_group("gloo")
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    torch.manual_seed(0)
    rows = torch.linspace(-1, 1, 64)[rank::world].reshape(-1, 1)
    wanted = 3 * rows - 1
    model = DistributedDataParallel(torch.nn.Linear(1, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=arguments.learning_rate)
    for epoch in range(arguments.epochs):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(rows), wanted)
        loss.backward()
        optimizer.step()
        if epoch % 20 == 19:
            print("epoch=%d loss=%.6f;" % (epoch, loss.item()))
    print("rank=%d world=%d weight=%.3f" % (rank, world, model.module.weight.item()))
    if rank == 0:
        torch.jit.script(model.module).save(os.path.join(arguments.model_dir, "model.pt"))
    torch.distributed.destroy_process_group()
