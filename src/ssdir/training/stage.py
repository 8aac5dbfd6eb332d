"""One stage of a training on Lightning: resumable, logged, and timed over its sessions."""

from __future__ import annotations

import gc
import signal
import sys
import time
import warnings
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint, RichProgressBar, TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from rich.console import Console

from ssdir.data.dataset import ObjectDataset
from ssdir.device import choose_device, device_name
from ssdir.training.checkpoints import PlainCheckpoints, run_key
from ssdir.training.graphs import DenseGraphs, has_graphs
from ssdir.training.loading import CachedDataset, EpochShuffle, make_loader
from ssdir.training.modules import LitStage
from ssdir.training.precision import trainer_precision
from ssdir.training.recipe import Recipe, StageConfig, read_fingerprint
from ssdir.training.selection import BestEpoch
from ssdir.training.session import OutOfTime, Session
from ssdir.training.summary import stage_seconds, write_summary

LOG_EVERY = 20
"""Steps from one row of metrics.csv to the next."""

CHECKPOINT = Path("checkpoints") / "last.ckpt"
"""Within the folder of a stage."""

# Lightning's advice on workers, which a recipe settles; on what a resumed run finds, which is kept; and on the
# detector, which is frozen in evaluation mode. And torch's on the stream on which graphs are captured.
_BESIDE_THE_POINT = (
    "(?s).*(num_workers|many workers|LeafSpec|Previous log files|exists and is not empty|in eval mode"
    "|AccumulateGrad node's stream)"
)


def fit_stage(
    stage: LitStage,
    train_split: ObjectDataset | CachedDataset,
    val_split: ObjectDataset | CachedDataset,
    recipe: Recipe,
    config: StageConfig,
    folder: Path,
    callbacks: list[Callback],
    session: Session,
    selection: BestEpoch | None = None,
) -> None:
    """Runs one stage from its last checkpoint, if there is one, and notes its wall-clock time.

    Args:
        stage: what to train; on the host afterwards.
        train_split: shuffled anew each epoch, by the recipe's seed.
        val_split: measured after each epoch.
        recipe: of the run.
        config: of the stage.
        folder: the stage's, within the run's.
        callbacks: beside those of this module and of the session.
        session: how this session is watched, and when it must end.
        selection: chooses the epoch that is kept; None keeps the last one.

    Raises:
        InputError: if the checkpoint to go on from is damaged, or of another run; if the disk is full.
        OutOfTime: if the session's deadline came before the stage's last epoch.
    """
    started = time.perf_counter()
    before = stage_seconds(folder.parent, folder.name)
    sampler = EpochShuffle(len(train_split), recipe.seed)
    device = choose_device()
    train_loader = make_loader(train_split, config.batch_size, device, sampler, recipe.workers)
    val_loader = make_loader(val_split, config.batch_size, device, None, recipe.workers)
    callbacks = [*callbacks, *([] if selection is None else [selection]), *session.callbacks(folder.name)]
    graphs = DenseGraphs()
    if has_graphs(device) and len(train_split) >= config.batch_size:
        callbacks.append(_Graphs(graphs, config.batch_size))
    last = folder / CHECKPOINT
    checkpoints = PlainCheckpoints(run_key(recipe, read_fingerprint(folder.parent), folder.name))
    if last.exists():
        # Workers are asked for their first images before Lightning says which epoch it goes on with.
        sampler.set_epoch(int(checkpoints.load_checkpoint(last)["epoch"]) + 1)
    bars = [] if session.progress else [_progress_bar()]
    trainer = lightning.Trainer(
        max_epochs=config.epochs,
        accelerator="auto",
        devices=1,
        precision=trainer_precision(recipe),
        plugins=[checkpoints],
        callbacks=[*bars, _Timer(folder, started, before), *callbacks, _SaveLast(last)],
        enable_progress_bar=bool(bars),
        logger=[
            _csv_logger(folder),
            TensorBoardLogger(folder.parent, name=folder.name, version="tensorboard"),
        ],
        num_sanity_val_steps=0,
        log_every_n_steps=max(1, min(LOG_EVERY, len(train_loader))),
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    try:
        _fit(trainer, stage, train_loader, val_loader, last if last.exists() else None)
    finally:
        graphs.release()
    has_stopped = selection is not None and selection.has_stopped
    if trainer.current_epoch < config.epochs and not has_stopped:
        raise OutOfTime(f"'{folder.parent}', {folder.name}: {trainer.current_epoch} of {config.epochs} epochs")
    stage.cpu()
    if selection is not None:
        selection.restore(stage)
    write_summary(folder, before + time.perf_counter() - started, ended=True, **_notes(stage, selection))
    stage.trainer = None
    del trainer, train_loader, val_loader
    _free(device)
    if stage.skipped_steps or stage.empty_batches:
        Console(stderr=True).print(
            f"{folder.name}: {stage.skipped_steps} steps were skipped (loss or gradient not finite), "
            f"{stage.empty_batches} batches had no object"
        )


def _fit(
    trainer: lightning.Trainer, stage: LitStage, train_loader: Any, val_loader: Any, checkpoint: Path | None
) -> None:
    """Has Lightning train, with Ctrl-C as everywhere else."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=_BESIDE_THE_POINT)
            trainer.fit(stage, train_loader, val_loader, ckpt_path=checkpoint)
    except SystemExit:
        if not trainer.interrupted:
            raise
        # Lightning answers Ctrl-C by ending the process, and has it ignored from then on.
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from None


def _free(device: torch.device) -> None:
    """Gives a GPU back what a stage held there, a split's images too: the next one asks how much is free."""
    if device.type == "cuda":
        gc.collect()  # The trainer and its loops hold each other.
        torch.cuda.empty_cache()


class _Graphs(Callback):
    """Captures a stage before its loaders start threads, which must not use the GPU meanwhile.

    A backbone of anyone's may do what no graph can hold: then the stage is trained without.
    """

    def __init__(self, graphs: DenseGraphs, batch_size: int) -> None:
        self.graphs, self.batch_size = graphs, batch_size

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        assert isinstance(pl_module, LitStage)
        try:
            with trainer.precision_plugin.forward_context():
                self.graphs.capture(pl_module, self.batch_size)
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            Console(stderr=True).print(
                f"a CUDA graph could not be captured, so steps go kernel by kernel: {reason}", markup=False
            )


class _SaveLast(Checkpoint):
    """Saves a checkpoint after each epoch, in the place of the one before."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        trainer.save_checkpoint(self.path)


class _Timer(Callback):
    """Adds up the wall-clock time of a stage over its sessions."""

    def __init__(self, folder: Path, started: float, before: float) -> None:
        self.folder, self.started, self.before = folder, started, before

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        assert isinstance(pl_module, LitStage)
        seconds = self.before + time.perf_counter() - self.started
        write_summary(self.folder, seconds, ended=False, **_notes(pl_module))


def _csv_logger(folder: Path) -> CSVLogger:
    """A logger of metrics.csv whose earlier rows survive a resume (Lightning's starts anew)."""
    folder.mkdir(parents=True, exist_ok=True)
    metrics = folder / "metrics.csv"
    if metrics.exists():
        sessions = sorted(folder.glob("metrics.*.csv"))
        metrics.rename(folder / f"metrics.{len(sessions)}.csv")
    return CSVLogger(folder.parent, name=folder.name, version="", flush_logs_every_n_steps=LOG_EVERY)


class _PlainProgressBar(TQDMProgressBar):
    """For piped output: a line now and then, and the terms of the loss alone.

    Lightning's bars go to what is stdout when they are made; results alone should go there.
    """

    def init_train_tqdm(self) -> Tqdm:
        with redirect_stdout(sys.stderr):
            return super().init_train_tqdm()

    def init_validation_tqdm(self) -> Tqdm:
        with redirect_stdout(sys.stderr):
            return super().init_validation_tqdm()

    def on_exception(self, *args: Any) -> None:
        """Ends the line of the bar, so that the error has its own."""
        for bar in (self._val_progress_bar, self._train_progress_bar):
            if bar is not None:
                bar.close()

    def get_metrics(self, *args: Any) -> dict[str, Any]:
        return {name: value for name, value in super().get_metrics(*args).items() if name != "v_num"}


class _RichProgressBar(RichProgressBar):
    """For terminals."""

    def get_metrics(self, *args: Any) -> dict[str, Any]:
        return {name: value for name, value in super().get_metrics(*args).items() if name != "v_num"}


def _progress_bar() -> Callback:
    if Console(stderr=True).is_terminal:
        return _RichProgressBar(console_kwargs={"stderr": True})
    return _PlainProgressBar(refresh_rate=50)


def _notes(stage: LitStage, selection: BestEpoch | None = None) -> dict[str, float | str | None]:
    return {
        **({} if selection is None else selection.notes),
        "skipped_steps": stage.skipped_steps,
        "empty_batches": stage.empty_batches,
        "device": device_name(choose_device()),
        "precision": stage.trainer.precision,
    }
