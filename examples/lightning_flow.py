"""A contractive flow on digits as a Lightning module (pip install lightning).

python examples/lightning_flow.py --steps 300
"""

import argparse
from typing import Any

import lightning
import torch
from digits import dequantised, digits
from plain_loop import CONFIG
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import acf


class FlowModule(lightning.LightningModule):
    """A flow, its loss, and what its proofs need after each step.

    On several devices give the trainer strategy="ddp": the loss calls the module, as Lightning's strategies do, and so
    the gradients are averaged. Sharded strategies (FSDP, DeepSpeed) are not supported.

    Args:
        config: as for `acf.build`.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.flow = acf.build(config)

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        """Return the negative log-likelihood in nats."""
        loss = -self.flow.log_prob(dequantised(batch[0])).mean()
        self.log("nats", loss, prog_bar=True)
        return loss

    def on_train_batch_end(self, *arguments: Any) -> None:
        """Let the estimates of spectral norms follow the weights."""
        self.flow.renormalise()

    def validation_step(self, batch: list[Tensor], index: int) -> None:
        """Log bits/dim of validation images."""
        self.log("bits_per_dim", acf.bits_per_dim(self.flow, batch[0]).mean(), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam."""
        return torch.optim.Adam(self.parameters(), lr=2e-3)


def main(steps: int, folder: str) -> None:
    """Train for so many steps and write the flow to a folder."""
    lightning.seed_everything(0, verbose=False)
    images, _, test_images, _ = digits()
    module = FlowModule(CONFIG)
    trainer = lightning.Trainer(
        max_steps=steps, accelerator="auto", devices=1, logger=False, enable_checkpointing=False, log_every_n_steps=10
    )
    training = DataLoader(TensorDataset(images), batch_size=64, shuffle=True, drop_last=True)
    testing = DataLoader(TensorDataset(test_images), batch_size=128)
    trainer.fit(module, training)

    flow = module.flow.eval()
    certificate = acf.tighten(flow)
    (result,) = trainer.validate(module, testing, verbose=False)
    print(f"test: {result['bits_per_dim']:.3f} bits/dim; proven Lipschitz constant {certificate.worst:.4f}")
    acf.save(flow, folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--folder", default="digits-flow")
    arguments = parser.parse_args()
    main(arguments.steps, arguments.folder)
