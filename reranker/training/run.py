"""A run from settings to an exported model, or to the reason why there is none."""

from __future__ import annotations

import json
import os
import platform
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from reranker.data.preparing import RunData, prepare
from reranker.data.sampling import Group, Sampler
from reranker.modelling.adapters import add_adapter, check_method, merged
from reranker.modelling.calibration import Platt, calibration_error, fit_platt
from reranker.modelling.export import open_folder, score_shift, write_folder
from reranker.modelling.opening import OpenedModel, open_model, unknown_tokens_warning
from reranker.modelling.scoring import shares
from reranker.settings.run import RunSettings
from reranker.training.batching import CPU_CHUNK, GPU_CHUNK, GroupCollator, Groups
from reranker.training.model_card import model_card
from reranker.training.outcome import Outcome, compare
from reranker.training.teaching import TaughtSampler, scored_records
from reranker.training.trainer import GroupLoss, GroupTrainer
from reranker.training.validation import METRIC, Measured, Validation, measure, measure_model
from reranker.training.watching import StepLog, StopAfter, Watch, WatchValidation
from reward.records.files import BadInput, file_sha256, write_atomically, write_json, writing_lines

MODEL, RESULT, STATE, TRAINED = "model", "result.json", "run.json", "trained.json"
_CHECKED_TEXTS = 200  # that the tokenizer is tried on


def run(settings: RunSettings, stop_after: int | None = None) -> dict[str, Any] | None:
    """Train, judge and export; return what `result.json` holds, None when the run stopped at `stop_after`.

    A finished run is left alone; an unfinished one goes on from its last checkpoint.

    Raises:
        BadInput: settings, data or model cannot be used, or the output folder holds another run.
    """
    check_method(settings.training)
    data = prepare(settings)
    out = settings.output
    _claim(out, {"config_sha256": settings.sha256, "data_sha256": data.sha256})
    if (out / RESULT).is_file():
        found: dict[str, Any] = json.loads((out / RESULT).read_text(encoding="utf-8"))
        return found
    sampler = _sampler(settings, data)
    write_json(out / "counts.json", data.counts)
    write_atomically(out / "left_out.jsonl", (json.dumps(_plain(one), ensure_ascii=False) for one in data.left_out))
    for name, groups in (("validation", data.validation), ("forgetting", data.forgetting)):
        _write_lists(out / f"{name}.jsonl", groups)
    opened = _open(settings, data)
    before = _before(out, opened, data)
    trainer, watch = _trainer(settings, opened, sampler, data)
    if not (out / TRAINED).is_file():
        last = _last_checkpoint(out / "checkpoints")
        if stop_after is not None:
            trainer.add_callback(StopAfter(stop_after))
        trainer.train(resume_from_checkpoint=str(last) if last else None)
        state = trainer.state
        if stop_after is not None and state.global_step < state.max_steps and not _stopped_early(trainer):
            return None
        best = {"checkpoint": state.best_model_checkpoint, "metric": state.best_metric, "step": state.best_global_step}
        write_json(out / TRAINED, {"steps": state.global_step, "best": best})
    else:  # cut off while it was exported
        trainer.load_best(json.loads((out / TRAINED).read_text(encoding="utf-8"))["best"]["checkpoint"])
    return _finish(settings, data, opened, watch, before)


def _sampler(settings: RunSettings, data: RunData) -> Sampler:
    if settings.training.loss != "margin_mse":
        return data.sampler(settings)
    if settings.training.teacher is not None:
        return TaughtSampler(data.sampler(settings), settings.training.teacher)
    records, left_out = scored_records(data.train)
    data.left_out.extend(left_out)
    data.counts["without_teacher_scores"] = len(left_out)
    return Sampler(records, [() for _ in records], [], settings.groups, settings.seed)


def _open(settings: RunSettings, data: RunData) -> OpenedModel:
    """Open the base with a head that the seed decides, and add the adapter."""
    import torch

    torch.manual_seed(settings.seed)
    opened = open_model(settings.base, settings.max_length, quantised=settings.training.method == "qlora")
    texts = [record.query for record in data.train] + [passage.text[:500] for passage in data.pool]
    chosen = np.random.default_rng(0).permutation(len(texts))[:_CHECKED_TEXTS]
    warning = unknown_tokens_warning(opened.cross_encoder.tokenizer, [texts[i] for i in chosen], settings.base)
    opened.warnings += [warning] if warning else []
    return opened


def _trainer(settings: RunSettings, opened: OpenedModel, sampler: Sampler, data: RunData) -> tuple[GroupTrainer, Watch]:
    import torch
    from sentence_transformers.cross_encoder import CrossEncoderTrainingArguments
    from transformers import EarlyStoppingCallback

    of, out, model = settings.training, settings.output, opened.cross_encoder
    torch.manual_seed(settings.seed)
    if of.method != "full":
        add_adapter(model, of)
    if of.freeze_embeddings:
        model.model.get_input_embeddings().weight.requires_grad_(False)
    cuda = torch.cuda.is_available()
    os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(out / "tensorboard"))
    per_epoch = -(-len(sampler) // (of.batch_size * of.gradient_accumulation))
    steps = min(of.max_steps or of.epochs * per_epoch, of.epochs * per_epoch)
    arguments = CrossEncoderTrainingArguments(
        output_dir=str(out / "checkpoints"),
        max_steps=steps,
        per_device_train_batch_size=of.batch_size,
        gradient_accumulation_steps=of.gradient_accumulation,
        learning_rate=of.learning_rate,
        warmup_steps=round(steps * of.warmup_share),
        weight_decay=of.weight_decay,
        gradient_checkpointing=of.gradient_checkpointing,
        seed=settings.seed,
        data_seed=settings.seed,
        eval_strategy="steps",
        eval_steps=of.eval_steps,
        save_strategy="steps",
        save_steps=of.eval_steps,
        save_total_limit=2,
        load_best_model_at_end=True,
        restore_callback_states_from_checkpoint=True,  # the patience that is spent
        metric_for_best_model=f"eval_{METRIC}",
        greater_is_better=True,
        logging_steps=min(10, of.eval_steps, steps),
        report_to=list(of.report_to) or "none",
        run_name=out.name,
        disable_tqdm=True,
        dataloader_num_workers=0,
    )
    validation = Validation(data.validation)
    watch = Watch(out / "alarms.jsonl", quiet_steps=arguments.warmup_steps)
    trainer = GroupTrainer(
        groups=Groups(sampler),
        collator=GroupCollator(model, GPU_CHUNK if cuda else CPU_CHUNK),
        watch=watch,
        model=model,
        loss=GroupLoss(model, of),
        args=arguments,
        evaluator=validation,
        callbacks=[
            WatchValidation(watch, validation),
            StepLog(out / "metrics.jsonl"),
            EarlyStoppingCallback(early_stopping_patience=of.patience),
        ],
    )
    return trainer, watch


def _before(out: Path, opened: OpenedModel, data: RunData) -> dict[str, Measured]:
    """Measure the base on both sets, once a run: a resumed one reads the scores again."""
    path = out / "before.npz"
    groups = {"validation": data.validation, "forgetting": data.forgetting}
    if path.is_file():
        with np.load(path) as known:
            return {name: measure(groups[name], known[name]) for name in groups}
    found = {name: measure_model(opened.cross_encoder, groups[name]) for name in groups}
    np.savez(path, **{name: one.scores for name, one in found.items()})  # type: ignore[arg-type]
    return found


def _finish(
    settings: RunSettings, data: RunData, opened: OpenedModel, watch: Watch, before: dict[str, Measured]
) -> dict[str, Any]:
    """Calibrate, write, load again, compare with the base, and keep the folder or say why not."""
    out, model = settings.output, opened.cross_encoder
    trained = measure_model(model, data.validation)
    training = json.loads((out / TRAINED).read_text(encoding="utf-8"))
    best = training["best"]
    # The library logs that a checkpoint cannot be loaded, and goes on with the last weights.
    if best["metric"] is not None and abs(trained.means[METRIC] - best["metric"]) > 1e-3:
        raise BadInput(
            f"{best['checkpoint']}: its weights give {METRIC} {trained.means[METRIC]}, "
            f"but {best['metric']} when it was written"
        )
    if settings.training.method != "full":
        model = merged(model, settings.base, out / "adapter")
        if settings.training.method == "qlora":  # merged into other weights than it was trained on
            trained = measure_model(model, data.validation)
    platt = fit_platt(trained.scores, trained.relevant)
    part = out / f"{MODEL}.partial"
    shutil.rmtree(part, ignore_errors=True)
    # A falling calibration would turn the ranking round; the model is refused below.
    written = platt if platt.slope > 0 else Platt(1.0, 0.0)
    write_folder(model, written, settings.max_length, part)
    # Judged by the folder that ships, loaded afresh, not by what is in memory.
    pairs = [(group.query, one.text) for group in data.validation for one in group.passages]
    shift, scores = score_shift(part, pairs, trained.scores, written)
    after = {
        "validation": measure(data.validation, scores),
        "forgetting": measure_model(open_folder(part), data.forgetting),
    }
    changes = {name: compare(before[name].values[METRIC], after[name].values[METRIC]) for name in after}
    outcome = Outcome(
        changes["validation"], changes["forgetting"], platt, after["validation"].constant, shift,
        settings.export.forgetting_tolerance,
    )  # fmt: skip
    old = before["forgetting"]
    result: dict[str, Any] = {
        **outcome.values(),
        "metrics": {
            name: {"before": before[name].means, "after": after[name].means} for name in ("validation", "forgetting")
        },
        "calibration_error": {
            "before": calibration_error(shares(old.scores), old.relevant),
            "after": calibration_error(shares(after["forgetting"].scores), after["forgetting"].relevant),
        },
        "intercept_module": len(model) > 1,
        "method": settings.training.method,
        "loss": settings.training.loss,
        "seed": settings.seed,
        "steps": training["steps"],
        "best_step": best["step"] or training["steps"],
        "alarms": watch.alarms,
        "warnings": opened.warnings,
        "data": data.counts,
        "data_sha256": data.sha256,
        "config_sha256": settings.sha256,
        "base": {"name": settings.base.name, "sha256": _weights_sha256(settings.base), "new_head": opened.new_head},
        "versions": {name: version(name) for name in ("sentence-transformers", "transformers", "torch", "peft")}
        | {"python": platform.python_version()},
    }
    if not outcome.refusal:
        _keep(settings, part, result, pairs, scores)
    shutil.rmtree(part, ignore_errors=True)
    write_json(out / RESULT, result)
    return result


def _keep(settings: RunSettings, part: Path, result: dict[str, Any], pairs: list[tuple[str, str]], scores: Any) -> None:
    """Add the ONNX file and the card, and give the folder its name."""
    from reranker.modelling.onnx_file import INT8, OnnxScorer, write_onnx

    if settings.export.onnx:
        write_onnx(open_folder(part), part)
        gap = np.abs(shares(OnnxScorer(part).logits(pairs)) - shares(scores))
        result["onnx"] = {"file": INT8, "mean_difference": float(gap.mean()), "largest": float(gap.max())}
        if gap.mean() > settings.export.onnx_tolerance:
            shutil.rmtree(part / "onnx")
            result["onnx"] = {"refused": f"mean difference {gap.mean():.4f} above {settings.export.onnx_tolerance:g}"}
    write_atomically(part / "README.md", [model_card(result)])
    shutil.rmtree(settings.output / MODEL, ignore_errors=True)
    part.rename(settings.output / MODEL)


def _claim(out: Path, run: dict[str, str]) -> None:
    """
    Raises:
        BadInput: the folder holds a run of other settings or data.
    """
    path = out / STATE
    if path.is_file():
        known = json.loads(path.read_text(encoding="utf-8"))
        for name, value in run.items():
            if known.get(name) != value:
                what = "settings" if name == "config_sha256" else "data"
                raise BadInput(f"output: {out} holds a run of other {what}: choose another folder, or remove it")
        return
    out.mkdir(parents=True, exist_ok=True)
    write_json(path, run)


def _last_checkpoint(folder: Path) -> Path | None:
    """Return the newest whole checkpoint: the trainer's state is what is written last."""
    found = [path for path in folder.glob("checkpoint-*") if (path / "trainer_state.json").is_file()]
    return max(found, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def _stopped_early(trainer: GroupTrainer) -> bool:
    for callback in trainer.callback_handler.callbacks:
        if type(callback).__name__ == "EarlyStoppingCallback":
            return bool(callback.early_stopping_patience_counter >= callback.early_stopping_patience)
    return False


def _weights_sha256(folder: Path) -> str:
    """Return the hash of the first weights file."""
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))
    return file_sha256(files[0]) if files else ""


def _plain(one: Any) -> dict[str, str]:
    return {"where": one.where, "field": one.field, "reason": one.reason}


def _write_lists(path: Path, groups: list[Group]) -> None:
    with writing_lines(path) as write:
        for group in groups:
            names = [one.doc_id for one in group.passages]
            line = {"query": group.query, "relevant": names[: group.positives], "other": names[group.positives :]}
            write(json.dumps(line, ensure_ascii=False))
