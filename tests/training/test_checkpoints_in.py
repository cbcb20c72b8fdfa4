"""What others' code wrote is what we read: the same pictures; what cannot be known is asked for."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.support.stock_adapters import (
    ALPHA,
    RANK,
    Stock,
    build_stock,
    drawn,
    save_by_diffusers,
    save_by_peft,
    save_nameless,
    wrapped,
)
from trainer.cli import main
from trainer.config import load_config
from trainer.errors import ModelError
from trainer.models.lora_files import Lora, read_lora
from trainer.models.lora_formats.nameless import parameter_order
from trainer.models.lora_formats.writing import DIFFUSERS_FILE, PEFT_FILE
from trainer.models.networks import build_networks

Save = Callable[[Path, Any, Any], Path]


@pytest.fixture(scope="module", params=["sd3", "zimage"])
def stock(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Stock:
    return build_stock(request.param, tmp_path_factory.mktemp("stock") / request.param)


@pytest.fixture(scope="module")
def sd3(tmp_path_factory: pytest.TempPathFactory) -> Stock:
    return build_stock("sd3", tmp_path_factory.mktemp("stock") / "sd3")


def settings(stock: Stock, **more: Any) -> LoraConfig:
    values = {"r": RANK, "lora_alpha": ALPHA, "target_modules": list(stock.targets), **more}
    return LoraConfig(**values)


def written(stock: Stock, save: Save, folder: Path, **more: Any) -> tuple[Path, Tensor]:
    """A file by the other side's code, and the pictures of what it saves."""
    pipeline = stock.pipeline()
    model = wrapped(pipeline, settings(stock, **more))
    return save(folder, pipeline, model), stock.theirs(pipeline)


def same(stock: Stock, lora: Lora, pictures: Tensor) -> None:
    torch.testing.assert_close(stock.ours(lora), pictures, atol=5e-5, rtol=0)
    plain = stock.theirs(stock.pipeline())
    assert float((plain - pictures).abs().max()) > 1e-3, "the LoRA changes nothing"


@pytest.mark.parametrize("save", [save_by_diffusers, save_by_peft])
def test_files_of_diffusers_and_peft_state_their_scale(
    stock: Stock, save: Save, tmp_path: Path
) -> None:
    file, pictures = written(stock, save, tmp_path / "lora")
    lora = read_lora(file)
    assert (lora.spec.rank, lora.spec.alpha) == (RANK, ALPHA)
    same(stock, lora, pictures)


def test_files_without_names_go_by_the_networks_order(stock: Stock, tmp_path: Path) -> None:
    file, pictures = written(stock, save_nameless, tmp_path / "lora")
    order = lambda: parameter_order(stock.folder, stock.targets)  # noqa: E731
    with pytest.raises(ModelError, match=r"no alpha, rank 4.*--alpha"):
        read_lora(file, order=order)
    same(stock, read_lora(file, ALPHA, order=order), pictures)
    stored = torch.load(file, weights_only=True)
    stored["ema_parameters"] = [nn.Parameter(t.bfloat16()) for t in stored["ema_parameters"]]
    torch.save(stored, file)
    tensors = read_lora(file, ALPHA, order=order).tensors.values()
    assert {(t.dtype, t.requires_grad) for t in tensors} == {(torch.float32, False)}


@pytest.mark.parametrize("save", [save_by_diffusers, save_by_peft])
@pytest.mark.parametrize(
    "more",
    [
        {"rank_pattern": {"to_q": 2}, "alpha_pattern": {"to_k": 3.0, r".*\.0\..*to_v": 1.0}},
        {"use_rslora": True},
    ],
    ids=["ranks and alphas by module", "rank-stabilised"],
)
def test_one_scale_and_rank_remain(
    sd3: Stock, save: Save, more: dict[str, Any], tmp_path: Path
) -> None:
    file, pictures = written(sd3, save, tmp_path / "lora", **more)
    lora = read_lora(file)
    assert lora.spec.rank == RANK
    same(sd3, lora, pictures)


KEYS: dict[str, Callable[[str], tuple[str, str]]] = {
    "kohya on diffusers' names": lambda m: (f"lora_unet_{m.replace('.', '_')}", "lora_{}.weight"),
    "OneTrainer": lambda m: (f"lora_transformer_{m.replace('.', '_')}", "lora_{}.weight"),
    "old diffusers": lambda m: (f"transformer.{m}", "lora.{}.weight"),
    "bare PEFT": lambda m: (m, "lora_{}.default.weight"),
}
LETTERS = {"bare PEFT": ("A", "B")}


@pytest.mark.parametrize("convention", KEYS)
def test_other_programs_keys(stock: Stock, convention: str, tmp_path: Path) -> None:
    ours = drawn(stock.folder, stock.targets)
    down, up = LETTERS.get(convention, ("down", "up"))
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        tensors = {}
        for module, part in ours.parts.items():
            name, ending = KEYS[convention](module)
            tensors[f"{name}.{ending.format(down)}"] = part.down.to(dtype)
            tensors[f"{name}.{ending.format(up)}"] = part.up.to(dtype)
            tensors[f"{name}.alpha"] = torch.tensor(ALPHA)
        save_file(tensors, tmp_path / "other.safetensors")
        found = read_lora(tmp_path / "other.safetensors")
        assert found.spec == ours.spec
        for name, tensor in found.tensors.items():
            assert torch.equal(tensor, ours.tensors[name].to(dtype).float()), name


def test_a_fused_layer_that_was_trained_as_one_is_shared_out(sd3: Stock, tmp_path: Path) -> None:
    down, up = torch.randn(2, 16), torch.randn(48, 2)
    name = "lora_unet_joint_blocks_1_x_block_attn_qkv"
    tensors = {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
    tensors |= {f"{name}.alpha": torch.tensor(1.0)}
    save_file(tensors, tmp_path / "fused.safetensors")
    lora = read_lora(tmp_path / "fused.safetensors")
    assert lora.spec.alpha / lora.spec.rank == 0.5
    for letter, rows in zip("qkv", up.chunk(3), strict=True):
        part = lora.parts[f"transformer_blocks.1.attn.to_{letter}"]
        assert torch.equal(part.up @ part.down, rows @ down)
    assert sd3.ours(lora).isfinite().all()


@pytest.fixture(scope="module")
def plain(sd3: Stock) -> dict[str, Tensor]:
    """A good file's tensors, by diffusers' keys, with no alpha said."""
    return {f"transformer.{k}": t for k, t in drawn(sd3.folder, sd3.targets).tensors.items()}


def test_a_scale_that_no_file_states_is_asked_for(plain: dict[str, Tensor], tmp_path: Path) -> None:
    file = tmp_path / DIFFUSERS_FILE
    save_file(plain, file)
    with pytest.raises(ModelError, match=r"does not say how strong.*set model\.student_alpha"):
        read_lora(file, setting="model.student_alpha")
    assert read_lora(file, 2.0).spec.alpha == 2.0
    first = next(iter(plain)).partition(".lora_")[0]
    save_file(plain | {f"{first}.alpha": torch.tensor(1.0)}, file)
    with pytest.raises(ModelError, match="does not say how strong"):
        read_lora(file)
    alphas = {f"{k.partition('.lora_')[0]}.alpha": torch.tensor(6.0) for k in plain}
    save_file(plain | alphas, file)
    assert read_lora(file).spec.alpha == 6.0
    with pytest.raises(ModelError, match=r"states alpha 6, and --alpha = 3 says otherwise"):
        read_lora(file, 3.0)


A = "transformer.transformer_blocks.0.attn.to_q.lora_A.weight"
B = A.replace("lora_A", "lora_B")
ODD: dict[str, tuple[dict[str, Tensor | None], str]] = {
    "text encoder": ({"text_encoder.layers.0.lora_A.weight": torch.ones(2, 2)}, "text encoder"),
    "kohya's text encoder": ({"lora_te1_x.lora_down.weight": torch.ones(2, 2)}, "text encoder"),
    "DoRA": ({A.replace("lora_A.weight", "lora_magnitude_vector"): torch.ones(2)}, "DoRA"),
    "bias": ({B.replace("weight", "bias"): torch.ones(2)}, "biases"),
    "LoKr": ({"lora_unet_x.lokr_w1": torch.ones(2, 2)}, "LoKr"),
    "whole weights": ({"transformer.proj_out.weight": torch.ones(2, 2)}, "no LoRA in a known"),
    "unknown layer": (
        {
            "lora_unet_wat_x.lora_down.weight": torch.ones(2, 2),
            "lora_unet_wat_x.lora_up.weight": torch.ones(2, 2),
        },
        "wat_x is no layer",
    ),
    "half a pair": ({B: None}, "has no up matrix"),
    "shapes": ({B: torch.ones(16, 3)}, r"shapes \(4, 16\) and \(16, 3\)"),
    "convolution": ({A: torch.ones(4, 16, 1, 1)}, "of a linear layer"),
    "integers": ({A: torch.ones(4, 16, dtype=torch.int8)}, "int8, not floating-point"),
    "not finite": ({A: torch.full((4, 16), float("nan"))}, "no finite"),
    "alpha 0": ({A.replace("lora_A.weight", "alpha"): torch.tensor(0.0)}, "no positive number"),
    "twice": ({A.removeprefix("transformer."): torch.ones(4, 16)}, "twice"),
}


@pytest.mark.parametrize("case", ODD)
def test_odd_files_are_designed_errors(plain: dict[str, Tensor], case: str, tmp_path: Path) -> None:
    changed, message = ODD[case]
    tensors = {k: t for k, t in {**plain, **changed}.items() if t is not None}
    save_file(tensors, tmp_path / "odd.safetensors")
    with pytest.raises(ModelError, match=message):
        read_lora(tmp_path / "odd.safetensors", 4.0)


def test_damaged_and_missing_files_are_designed_errors(
    plain: dict[str, Tensor], tmp_path: Path
) -> None:
    save_file(plain, tmp_path / "whole.safetensors")
    data = (tmp_path / "whole.safetensors").read_bytes()
    torch.save({"decay": 0.9, "ema_parameters": list(plain.values())}, tmp_path / "whole.ckpt")
    cut = (tmp_path / "whole.ckpt").read_bytes()[:-100]
    damaged = {"cut.safetensors": data[:-100], "empty.ckpt": b"", "a.pt": data, "cut.ckpt": cut}
    for name, content in damaged.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError, match=r"no readable LoRA|is not run"):
            read_lora(tmp_path / name, 4.0)
    for path in (tmp_path / "absent.safetensors", tmp_path / "absent.ckpt"):
        with pytest.raises(ModelError, match="no readable LoRA"):
            read_lora(path)
    with pytest.raises(ModelError, match="several files of weights"):
        read_lora(tmp_path)


class Malice:
    """Would write a file if it were unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


def test_code_in_a_torch_file_is_never_run(sd3: Stock, tmp_path: Path) -> None:
    target = tmp_path / "touched"
    torch.save({"decay": 0.9, "ema_parameters": [Malice(target)]}, tmp_path / "new.ckpt")
    (tmp_path / "old.ckpt").write_bytes(pickle.dumps({"ema_parameters": Malice(target)}))
    for name in ("new.ckpt", "old.ckpt"):
        with pytest.raises(ModelError, match="is not run"):
            read_lora(tmp_path / name, 4.0)
    assert not target.exists()


def test_nameless_files_of_other_networks_are_refused(sd3: Stock, tmp_path: Path) -> None:
    file, _ = written(sd3, save_nameless, tmp_path / "lora")
    good = torch.load(file, weights_only=True)["ema_parameters"]
    order = lambda: parameter_order(sd3.folder, sd3.targets)  # noqa: E731
    swapped = [good[1], good[0], *good[2:]]
    mixed = [good[0], good[1], good[2][:2], good[3][:, :2], *good[4:]]
    for stored, message in (
        ({"decay": 0.9, "ema_parameters": good[:-1]}, "tensors, and the LoRA's targets"),
        ({"decay": 0.9, "ema_parameters": swapped}, "tensor 0 has shape"),
        ({"decay": 0.9, "ema_parameters": mixed}, "tensor 2 has shape"),
        ({"decay": 0.9, "ema_parameters": good, "step": 3}, r"holds more than.*'step'"),
        ({"decay": 0.9, "ema_parameters": []}, "is empty"),
        ({"decay": 0.9, "ema_parameters": {"a": good[0]}}, "no list of tensors"),
        ({"a.lora_A.weight": good[0]}, "without 'ema_parameters'"),
    ):
        torch.save(stored, tmp_path / "other.ckpt")
        with pytest.raises(ModelError, match=message):
            read_lora(tmp_path / "other.ckpt", 4.0, order=order)
    with pytest.raises(ModelError, match="--model"):
        read_lora(file, 4.0)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"r": 5}, "has rank 4, and its configuration says 5"),
        ({"use_dora": True}, "DoRA"),
        ({"peft_type": "LOHA"}, "only LoRAs"),
        ({"init_lora_weights": "pissa_niter_4"}, "a base that pissa"),
        ({"lora_alpha": -1}, "no positive number"),
        ({"lora_alpha": None}, "does not say how strong"),
        ({"alpha_pattern": {"(": 1}}, "patterns .* cannot be read"),
        ({"rank_pattern": "to_q"}, "patterns 'to_q' cannot be read"),
    ],
)
def test_configurations_that_do_not_fit_are_refused(
    plain: dict[str, Tensor], changed: dict[str, Any], message: str, tmp_path: Path
) -> None:
    tensors = {k.replace("transformer.", "base_model.model.", 1): t for k, t in plain.items()}
    save_file(tensors, tmp_path / PEFT_FILE)
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 6} | changed
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=message):
        read_lora(tmp_path)


def test_the_command_writes_a_folder_to_start_from(
    sd3: Stock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, pictures = written(sd3, save_nameless, tmp_path / "lora")
    out = tmp_path / "start"
    words = ["import-lora", str(file), "--out", str(out), "--model", str(sd3.folder)]
    assert main(words) == 2
    assert "--alpha" in capsys.readouterr().err
    assert main([*words, "--alpha", "6"]) == 0
    assert "rank 4, alpha 6" in capsys.readouterr().out
    same(sd3, read_lora(out), pictures)
    assert main([*words, "--alpha", "6", "--targets", "attn.to_q"]) == 2
    assert "targets on this model have 4" in capsys.readouterr().err


def test_training_starts_from_it(sd3: Stock, tmp_path: Path) -> None:
    file, pictures = written(sd3, save_nameless, tmp_path / "lora")
    words = [f"model.path={sd3.folder}", f"model.student_lora={file}", f"model.fake_lora={file}"]
    backbone = copy.copy(sd3.backbone)
    with pytest.raises(ModelError, match=r"set model\.student_alpha"):
        build_networks(backbone, load_config(None, words))
    words.append("model.student_alpha=6")
    with pytest.raises(ModelError, match=r"set model\.fake_alpha"):
        backbone.network = copy.deepcopy(sd3.backbone.network)
        build_networks(backbone, load_config(None, words))
    backbone.network = copy.deepcopy(sd3.backbone.network)
    networks = build_networks(backbone, load_config(None, [*words, "model.fake_alpha=6"]))
    same(sd3, networks.lora("generator_ema"), pictures)
    assert networks.fingerprint("fake") == networks.fingerprint("generator")
    assert networks.specs["surrogate"].rank == 32
