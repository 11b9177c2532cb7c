"""The one training loop, for pretraining and finetuning alike.

What it promises: the result is a function of the job, not of workers or interruptions, and, for a model without batch
statistics and up to rounding, not of the number of ranks. On CPUs a run that was killed and started again ends with the
same weights, bit for bit (train.exactness says what that depends on).
"""

import contextlib
import functools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from infra import log, rundir
from infra.errors import Lost
from infra.seeding import digest64, rng
from train import (
    averaging,
    batchnorm,
    cache,
    checkpoint,
    compilation,
    decoding,
    exactness,
    fetching,
    finite,
    journal,
    model,
    notice,
    online,
    optim,
    ranks,
    scoring,
)
from train.encoder import Encoder
from train.job import Job, check
from train.objective import Clock, Objective, Setting
from train.ranks import Place
from train.step import learn
from train.stream import Pairs, Stream


def train(job: Job, place: Place) -> str:
    """Run, or resume, or say that there is nothing to do. Call it inside `ranks.group()`. Returns the last line."""

    # ------------------------------------------------------------------ the folder
    def before() -> dict[str, Any] | None:
        rundir.check(job.out, job.config, job.free, job.inputs)
        return rundir.done(job.out)

    check(job, place)
    online.check(job.wandb)
    ranks.together(job.objective.ready)
    if job.decode == "device":
        ranks.together(lambda: decoding.check(place.device))
    if (done := ranks.first(before)) is not None:
        return f"nothing to do: {job.out} is finished ({done['checkpoint']})"

    with contextlib.ExitStack() as stack:
        stack.enter_context(_deterministic(place.device))
        # -------------------------------------------------------------- input
        local = ranks.together(lambda: _at_hand(job, place, stack))
        pairs = Pairs(
            local,
            job.objective,
            model.tokenizer(job.architecture),
            size=model.image_size(job.architecture),
            augment=job.recipe.augment,
            seed=job.seed,
            on_device=job.decode == "device",
        )
        stream = Stream(
            pairs,
            seed=job.seed,
            batch=job.recipe.batch,
            rank=place.rank,
            ranks=place.ranks,
            workers=job.workers,
            pin=place.device.type == "cuda",
            lanes=job.plan,
        )

        # -------------------------------------------------------------- model, optimiser
        encoder = ranks.together(lambda: _encoder(job, place))
        state = _state(job, place.device).to(place.device)
        optimizer = optim.adamw(
            [encoder, state],
            lr=job.recipe.lr,
            weight_decay=job.recipe.weight_decay,
            beta1=job.recipe.beta1,
            beta2=job.recipe.beta2,
            eps=job.recipe.eps,
        )
        scaler = torch.amp.GradScaler(place.device.type) if job.precision == "float16" else None
        update = optim.Update(optimizer, job.recipe.grad_clip, scaler)

        # -------------------------------------------------------------- resume
        ranks.first(lambda: rundir.claim(job.out, job.config, job.free, job.inputs))  # nothing was written before
        position = ranks.together(lambda: _resume(job, encoder, state, update))
        step, roles = position.step, position.roles
        stack.enter_context(exactness.kept(job.out, step, place.ranks, place.device, job.way_of_start))
        learner = averaging.distributed(encoder, job.objective, place)
        book = None
        if place.first:
            book = journal.Journal(job, place, step, stack.enter_context(online.told(job)))
        log_steps = max(1, min(50, job.total_steps // 100))

        # -------------------------------------------------------------- steps
        bar = stack.enter_context(journal.progress(job, place, step))
        writer = stack.enter_context(checkpoint.Background())
        leaving = stack.enter_context(notice.awaited(place))
        meter = journal.Meter()
        watch = finite.Watch(job, stream, place.device)
        stack.enter_context(compilation.refused_in_one_line(job.compile))
        saved_at = time.monotonic()
        while step < job.total_steps:
            epoch, first_step = divmod(step, job.steps_per_epoch)
            if first_step == 0:
                roles = _roles(job, encoder, state, stream, place, _clock(job, step))
            for batch in meter.waiting_for(stream.epoch(epoch, first_step, roles)):
                clock = _clock(job, step)
                rate = optim.learning_rate(
                    step, lr=job.recipe.lr, warmup_steps=job.recipe.warmup_steps, total_steps=job.total_steps
                )
                rate *= job.objective.rate(clock)
                optim.set_learning_rate(optimizer, rate)
                loss, rows = learn(
                    learner,
                    job.objective,
                    state,
                    decoding.completed(batch, place.device),
                    clock,
                    job.way,
                    draw=functools.partial(_seed_model, job.seed, step, place),
                    scaled=update.scaled,
                )
                length = update.take()
                optim.clamp_logit_scale(encoder.clip)
                step += 1
                meter.samples += job.recipe.batch
                if book is not None:
                    book.matches.add(step, rows, loss.matches)
                watch.add(step, loss.total, roles)

                if step % log_steps == 0 or step == job.total_steps:
                    watch.check(roles)
                    line = journal.measurement(step, epoch, loss, rate, encoder.clip.logit_scale.exp(), meter)
                    if length is not None:
                        line["gradient_norm"] = float(length)
                    if book is not None:
                        book.append(line)
                    bar(job.recipe.batch, f"loss {line['loss']:.3f}")
                else:
                    bar(job.recipe.batch, "")
                last, told = step == job.total_steps, leaving()
                due = job.checkpoint_steps is not None and step % job.checkpoint_steps == 0
                if book is not None and (last or due or told or time.monotonic() - saved_at > job.checkpoint_seconds):
                    watch.check(roles, alone=True)
                    with meter.paused():
                        _save(writer, book, job, step, roles, encoder, state, update)
                    saved_at = time.monotonic()
                writer.check()
                if book is not None and told and not last:
                    writer.wait()
                    raise Lost(f"told to end (SIGTERM) after step {step:,}, which is saved: run the same command again")

        # -------------------------------------------------------------- result
        ranks.together(writer.wait)
        return ranks.first(lambda: _finish(job, encoder))


def _at_hand(job: Job, place: Place, stack: contextlib.ExitStack) -> cache.Local:
    """The dataset on this node, for as long as the stack is open; the first rank of the node sees to it."""
    if job.plan is None:
        if not place.first_of_node:
            return cache.located(job.dataset)
        return stack.enter_context(cache.filled(job.dataset, job.cache_gib, quiet=not place.first))
    local = fetching.located(job.dataset, job.out, place.rank, place.local_rank)
    if place.first_of_node:
        lanes = job.plan.of(place.rank, place.ranks, place.local_ranks)
        stack.enter_context(
            fetching.served(
                job.dataset,
                job.plan,
                job.recipe.epochs,
                lanes,
                local,
                ranks=place.local_ranks,
                cache_gib=job.cache_gib,
                quiet=not place.first,
            )
        )
    return local


def _clock(job: Job, step: int) -> Clock:
    return Clock(step, step // job.steps_per_epoch, job.steps_per_epoch, step * job.recipe.batch)


def _encoder(job: Job, place: Place) -> Encoder:
    clip = model.create(job.architecture, job.seed)
    job.fill(clip)
    if job.precision == "float64":
        clip.double()
    if job.sync_batchnorm and place.ranks > 1:
        batchnorm.synchronise(clip)
    if job.grad_checkpointing:
        have = model.recompute_activations(clip)
        if place.first and (lacking := sorted({"image", "text"} - have)):
            log.warn(f"no gradient checkpointing for the {' and '.join(lacking)} tower: this model has none there")
    low = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(job.precision)
    if job.precision == "auto" and place.device.type == "cuda":
        low = torch.bfloat16
    locked: frozenset[str] = frozenset() if job.recipe.lock is None else frozenset({job.recipe.lock})
    encoder = Encoder(clip, *model.mean_and_std(job.architecture), autocast=low, locked=locked).to(place.device)
    if job.objective.from_start:
        encoder.keep_start()  # before a checkpoint is loaded: a run that resumes began with the same
    if job.compile:
        compilation.prepare()
        encoder.compile()
    return encoder


def _state(job: Job, device: torch.device) -> nn.Module:
    torch.default_generator.manual_seed(digest64(job.seed, "objective"))  # a head is initialised alike on every rank
    width = job.architecture["model_cfg"]["embed_dim"]
    return job.objective.state(Setting(width, job.dataset.samples, len(job.dataset.classes), device))


@contextlib.contextmanager
def _deterministic(device: torch.device) -> Iterator[None]:
    if device.type == "cuda":  # would cost speed there, and the promise is not made
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.utils.deterministic.fill_uninitialized_memory = before[1]  # type: ignore[attr-defined]


def _seed_model(seed: int, step: int, place: Place, micro_batch: int = 0) -> None:
    """What a model draws in a step (patch dropout) is that step's, so that nothing has to be saved for resuming."""
    labels = ("micro-batch", micro_batch) if micro_batch else ()
    number = digest64(seed, "model draws", step, place.rank, *labels)
    torch.default_generator.manual_seed(number)
    if place.device.type == "cuda":
        torch.cuda.manual_seed(number)


def _roles(
    job: Job, encoder: Encoder, state: nn.Module, stream: Stream, place: Place, clock: Clock
) -> np.ndarray | None:
    if type(job.objective).epoch is Objective.epoch:
        return None
    rows = np.asarray(stream.pairs.columns["rows"])
    drawn = rng(job.seed, "roles", clock.epoch)
    return job.objective.epoch(clock, rows, lambda ids: scoring.cosines(encoder, stream, place, ids), drawn, state)


# ---------------------------------------------------------------------- checkpoints


@dataclass(frozen=True)
class _Position:
    step: int
    roles: np.ndarray | None


def _order(job: Job) -> dict[str, Any]:
    lanes = {} if job.lanes is None else {"lanes": list(job.lanes)}
    return {"dataset": job.dataset.digest, "seed": job.seed, "batch": job.recipe.batch} | lanes


def _save(
    writer: checkpoint.Background,
    book: journal.Journal,
    job: Job,
    step: int,
    roles: np.ndarray | None,
    encoder: Encoder,
    state: nn.Module,
    update: optim.Update,
) -> None:
    training: dict[str, Any] = {
        "optimizer": update.optimizer.state_dict(),
        "objective": state.state_dict(),
        "step": step,
        "epoch": step // job.steps_per_epoch,
        "samples": step * job.recipe.batch,
        "order": _order(job),
        "roles": None if roles is None else torch.from_numpy(roles),
    }
    if update.scaler is not None:
        training["scaler"] = update.scaler.state_dict()
    weights, training = checkpoint.snapshot((encoder.clip.state_dict(), training))
    matched = book.matches.take()

    def write() -> None:
        rundir.stands(job.out)
        book.flush()  # first: a resumed run can forget lines after its checkpoint, not bring back those before
        if matched is not None:
            book.matches.write(step, matched)
        checkpoint.save(job.out, step, model.pack(weights), training, job.keep_checkpoints)

    writer.start(write)


def _resume(job: Job, encoder: Encoder, state: nn.Module, update: optim.Update) -> _Position:
    """Load the newest whole checkpoint, the same on every rank, if there is one."""

    def newest() -> str | None:
        found = checkpoint.find(job.out)
        return found.name if found else None

    name = ranks.first(newest)
    found = None if name is None else checkpoint.named(job.out, name)
    if found is None:
        return _Position(0, None)
    training = found.read_training()
    if training["order"] != _order(job):
        raise ValueError(f"{found.url} was made from another dataset, seed, batch or order: choose another --out")
    model.load_bytes(encoder.clip, found.read(checkpoint.MODEL))
    try:
        state.load_state_dict(training["objective"])
    except RuntimeError as error:  # all else that shapes it is in the configuration, which is the same
        raise ValueError(
            f"{found.url} was made on another number of ranks, on which this objective's state depends: "
            "start as many as before, or choose another --out"
        ) from error
    update.optimizer.load_state_dict(training["optimizer"])
    if update.scaler is not None:
        update.scaler.load_state_dict(training["scaler"])
    roles = training["roles"]
    return _Position(int(training["step"]), None if roles is None else roles.numpy())


def _finish(job: Job, encoder: Encoder) -> str:
    model.export(encoder.clip, job.architecture, job.out)
    last = checkpoint.whole(job.out)[-1]
    assert last.step == job.total_steps
    rundir.finish(job.out, {"checkpoint": last.name, "sha256": last.sha256(checkpoint.MODEL), "steps": last.step})
    note = f"; {job.note}" if job.note else ""
    return f"{job.total_steps:,} steps; run at {job.out} ({last.name}), for open_clip in {job.out}/{model.EXPORT}{note}"
