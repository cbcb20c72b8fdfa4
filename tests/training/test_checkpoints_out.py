"""What we export is read by the other side's own code: the same pictures, whoever reads alpha."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.loaders import single_file_utils
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.support.stock_adapters import PROMPTS, RANK, SHIFT, STEPS, Stock, build_stock, drawn
from tests.support.tiny_pipelines import FAMILIES, written
from trainer.config import Config
from trainer.errors import ModelError
from trainer.export import export
from trainer.models.backbones import backbone_class
from trainer.models.lora_files import read_lora
from trainer.models.lora_formats.adapter import Part, folded
from trainer.models.lora_formats.writing import DIFFUSERS_FILE, FORMATS, write_as

UNTYPED: Any = single_file_utils


@pytest.fixture(scope="module", params=["sd3", "zimage"])
def stock(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Stock:
    return build_stock(request.param, tmp_path_factory.mktemp("stock") / request.param)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Pipelines of which only names and shapes matter, each built once."""
    root = tmp_path_factory.mktemp("families")

    @cache
    def build(name: str) -> Path:
        return written(next(family for family in FAMILIES if family.name == name), root / name)

    return build


def config_of(stock: Stock) -> Config:
    model = stock.model.model_dump(exclude_none=True)
    rollout = {"k_steps": STEPS, "flow_shift": SHIFT}
    return Config.model_validate({"model": model, "rollout": rollout})


@pytest.mark.parametrize("kind", ["diffusers", "peft"])
def test_the_cards_own_call_makes_our_pictures(stock: Stock, kind: str, tmp_path: Path) -> None:
    lora = drawn(stock.folder, stock.targets)
    out = export(lora, config_of(stock), tmp_path / "lora", kind)
    names: dict[str, Any] = {}
    exec((out / "README.md").read_text().split("```python")[1].split("```")[0], names)
    call = names["call"] | {"latents": stock.noise, "output_type": "pt"}
    theirs = names["pipe"]([*PROMPTS], **call).images
    torch.testing.assert_close(theirs, stock.ours(lora), atol=5e-5, rtol=0)
    plain = stock.theirs(stock.pipeline())
    assert float((plain - theirs).abs().max()) > 1e-3, "the LoRA changes nothing"


def test_who_reads_no_alpha_sees_full_strength(stock: Stock, tmp_path: Path) -> None:
    lora = drawn(stock.folder, stock.targets)
    out = export(lora, config_of(stock), tmp_path / "lora")
    tensors = load_file(out / DIFFUSERS_FILE)
    with safe_open(out / DIFFUSERS_FILE, framework="pt") as handle:
        assert f'"transformer.lora_alpha": {RANK}.0' in handle.metadata()["lora_adapter_metadata"]
    save_file(tensors, tmp_path / DIFFUSERS_FILE)  # without the header
    pipeline = stock.pipeline()
    pipeline.load_lora_weights(str(tmp_path), weight_name=DIFFUSERS_FILE)
    torch.testing.assert_close(stock.theirs(pipeline), stock.ours(lora), atol=5e-5, rtol=0)


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_comes_back_to_the_last_bit(stock: Stock, kind: str, tmp_path: Path) -> None:
    lora = drawn(stock.folder, stock.targets)
    back = read_lora(export(lora, config_of(stock), tmp_path / "lora", kind))
    assert (back.spec.rank, back.spec.alpha) == (RANK, RANK)
    for module, part in folded(lora.parts).items():
        assert torch.equal(back.parts[module].down, part.down)
        assert torch.equal(back.parts[module].up, part.up)
    assert back.parts.keys() == lora.parts.keys()


@pytest.mark.parametrize("family", ["flux", "qwen_image"])
@pytest.mark.parametrize("kind", FORMATS)
def test_other_families_come_back_too(
    family: str, kind: str, folders: Callable[[str], Path], tmp_path: Path
) -> None:
    config = Config.model_validate({"model": {"path": folders(family)}})
    targets = backbone_class(config.model).default_lora_targets
    lora = drawn(folders(family), (*targets, "proj_mlp") if family == "flux" else targets)
    back = read_lora(export(lora, config, tmp_path / "lora", kind))
    for module, part in folded(lora.parts).items():
        assert torch.equal(back.parts[module].down, part.down)
        assert torch.equal(back.parts[module].up, part.up)
    assert back.parts.keys() == lora.parts.keys()


def test_a_family_without_original_names_is_a_designed_error(
    folders: Callable[[str], Path], tmp_path: Path
) -> None:
    config = Config.model_validate({"model": {"path": folders("sana")}})
    lora = drawn(folders("sana"), ("attn1.to_q",))
    with pytest.raises(ModelError, match=r"attn1\.to_q of sana has no name.*--format diffusers"):
        export(lora, config, tmp_path / "lora", "comfyui")


def test_the_names_of_flux_are_those_that_diffusers_converts(tmp_path: Path) -> None:
    width, parts = 3072, {}  # the converter knows no other
    shapes = {f"transformer_blocks.0.attn.to_{c}": width for c in "qkv"}
    shapes |= {f"transformer_blocks.0.attn.add_{c}_proj": width for c in "qkv"}
    shapes |= {f"single_transformer_blocks.0.attn.to_{c}": width for c in "qkv"}
    shapes |= {"transformer_blocks.0.attn.to_add_out": width}
    shapes |= {"transformer_blocks.0.ff_context.net.2": width}
    shapes |= {"single_transformer_blocks.0.proj_mlp": 4 * width}
    shapes |= {"single_transformer_blocks.0.proj_out": width}
    for module, rows in shapes.items():
        parts[module] = Part(torch.randn(2, 6), torch.randn(rows, 2), 2.0)
    file = write_as("comfyui", tmp_path, parts, "flux")
    original = changes(file, "diffusion_model.", dots=True)
    checkpoint = Whole({f"{name}.weight": change for name, change in original.items()})
    for name in ("double_blocks.0.img_attn.qkv", "single_blocks.0.linear1"):
        checkpoint[f"{name}.bias"] = torch.zeros(original[name].shape[0])
    converted = UNTYPED.convert_flux_transformer_checkpoint_to_diffusers(checkpoint)
    for module, part in parts.items():
        torch.testing.assert_close(converted[f"{module}.weight"], part.up @ part.down)


class Whole(dict[str, Tensor]):
    """A checkpoint in original names, of which only what a LoRA changes is there: else zeros."""

    def pop(self, key: str, default: Any = None) -> Tensor:  # type: ignore[override]
        return super().pop(key, torch.zeros(6, 6))


CONVERTERS = {
    "sd3": "convert_sd3_transformer_checkpoint_to_diffusers",
    "zimage": "convert_z_image_transformer_checkpoint_to_diffusers",
}


def changes(file: Path, prefix: str, dots: bool) -> dict[str, Tensor]:
    """What a file adds to each layer, read as ComfyUI and kohya read it: alpha / rank up @ down."""
    tensors = load_file(file)
    names = [key.removesuffix(".alpha") for key in tensors if key.endswith(".alpha")]
    assert all(name.startswith(prefix) for name in names)
    assert len(tensors) == 3 * len(names)
    assert dots or not any("." in name for name in names)
    found = {}
    for name in names:
        down, up = tensors[f"{name}.lora_down.weight"], tensors[f"{name}.lora_up.weight"]
        scale = float(tensors[f"{name}.alpha"]) / down.shape[0]
        found[name.removeprefix(prefix)] = scale * up @ down
    return found


def test_the_original_names_are_those_that_diffusers_converts(stock: Stock, tmp_path: Path) -> None:
    family = stock.backbone.name
    lora = drawn(stock.folder, stock.targets)
    file = (
        export(lora, config_of(stock), tmp_path / "comfyui", "comfyui") / "lora_comfyui.safetensors"
    )
    original = changes(file, "diffusion_model.", dots=True)
    checkpoint = Whole({f"{name}.weight": change for name, change in original.items()})
    if family == "sd3":
        checkpoint["context_embedder.weight"] = torch.zeros(16, 8)  # says how wide the network is
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(UNTYPED, "get_caption_projection_dim", lambda checkpoint: 3)
        converted = getattr(UNTYPED, CONVERTERS[family])(checkpoint)
    for module, part in lora.parts.items():
        expected = part.scale * part.up @ part.down
        torch.testing.assert_close(converted[f"{module}.weight"], expected)
    out = export(lora, config_of(stock), tmp_path / "kohya", "kohya")
    flat = changes(out / "lora_kohya.safetensors", "lora_unet_", dots=False)
    assert flat.keys() == {name.replace(".", "_") for name in original}
    for name, change in original.items():
        assert torch.equal(flat[name.replace(".", "_")], change)


def test_a_layer_adapted_in_part_leaves_its_rest_alone(tmp_path: Path) -> None:
    stock = build_stock("sd3", tmp_path / "sd3")
    lora = drawn(stock.folder, ("attn.to_k", "ff.net.0.proj", "proj_out"))
    out = export(lora, config_of(stock), tmp_path / "kohya", "kohya")
    for name, change in changes(out / "lora_kohya.safetensors", "lora_unet_", dots=False).items():
        if name.endswith("qkv"):
            query, key, value = change.chunk(3)
            assert key.any()
            assert not query.any()
            assert not value.any()
    back = read_lora(out)
    assert back.parts.keys() == lora.parts.keys()
    other = drawn(stock.folder, ("norm_out.linear",))
    with pytest.raises(ModelError, match=r"norm_out\.linear of sd3 has no name.*--format diff"):
        export(other, config_of(stock), tmp_path / "no", "kohya")
    assert not (tmp_path / "no").exists()


def test_cards_say_what_to_choose(stock: Stock, tmp_path: Path) -> None:
    lora = drawn(stock.folder, stock.targets)
    for kind in FORMATS:
        card = (export(lora, config_of(stock), tmp_path / kind, kind) / "README.md").read_text()
        for word in ("bfloat16 on CUDA", "strength 1", "shift", "0.75", "TDM-R1"):
            assert word in card, (kind, word)
        assert ("KSampler" in card) is (kind in ("comfyui", "kohya"))
        assert ("Forge" in card) is (kind == "kohya")
