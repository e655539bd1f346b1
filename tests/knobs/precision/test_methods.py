"""Methods of quantization: which layers each takes, what packages that are not installed here are told, and bytes."""

import copy
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import CPU, gpu, make_target
from live import WORKLOAD, loaded
from tiny_pipes import tiny_pipe
from torchao.quantization import quantize_

from autotune.building import build
from autotune.footprint import Component, Footprint
from autotune.knobs import complete, find_knob
from autotune.knobs.precision._bitsandbytes import movable
from autotune.knobs.precision._linear_layers import bytes_of, candidates
from autotune.knobs.precision._methods import all_methods
from autotune.knobs.precision._quanto import with_bias_apart
from autotune.knobs.precision._torchao import how
from autotune.pipelines import parts

KNOB, WORDS = find_knob("quantization"), find_knob("quantize_text_encoder")
METHODS = all_methods()
EVERYTHING: dict[str, Any] = {"compile": "everything", "compile_mode": "max-autotune"}


class Params4bit(torch.nn.Parameter):
    """Half a byte of each weight, and a scale of every 64, as bitsandbytes holds them; its values are not computed."""

    def __new__(cls, data: torch.Tensor, requires_grad: bool = False, **how: Any) -> "Params4bit":
        made = torch.Tensor._make_subclass(cls, data, requires_grad)
        made.how = how
        return made

    def to(self, device: Any, *_: Any) -> "Params4bit":
        if self.dtype is torch.uint8:
            return self
        made = Params4bit(torch.zeros(self.numel() // 2, 1, dtype=torch.uint8, device=device), **self.how)
        made.quant_state = SimpleNamespace(absmax=torch.zeros(self.numel() // 64))
        return made


class Linear4bit(torch.nn.Linear):
    def __init__(self, inputs: int, outputs: int, bias: bool, device: str, **how: Any) -> None:
        super().__init__(inputs, outputs, bias, device=device)
        self.how = how


class Int8Params(torch.nn.Parameter):
    """A byte of each weight, and a scale of each output."""

    CB: torch.Tensor | None = None
    SCB: torch.Tensor | None = None

    def __new__(cls, data: torch.Tensor, requires_grad: bool = False, **how: Any) -> "Int8Params":
        return torch.Tensor._make_subclass(cls, data, requires_grad)

    def to(self, device: Any, *_: Any) -> "Int8Params":
        if self.dtype is torch.int8:
            return self
        made = Int8Params(torch.zeros(self.shape, dtype=torch.int8, device=device))
        made.SCB = torch.zeros(self.shape[0])
        return made


class Linear8bitLt(Linear4bit):
    state = SimpleNamespace(CB=None, SCB=None)


class QLinear(torch.nn.Linear):
    """A layer of quanto, whose weight stays as it is."""

    frozen = False

    @classmethod
    def from_module(cls, layer: torch.nn.Linear, weights: str) -> "QLinear":
        made = cls(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
        made.weight, made.bias, made.kind = layer.weight, layer.bias, weights
        return made

    def freeze(self) -> None:
        self.frozen = True


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins for bitsandbytes and optimum-quanto, which are not installed here."""
    bnb, quanto = ModuleType("bitsandbytes"), ModuleType("optimum.quanto")
    names = (Params4bit, Linear4bit, Int8Params, Linear8bitLt)
    bnb.nn = SimpleNamespace(**{cls.__name__: cls for cls in names})  # type: ignore[attr-defined]
    vars(quanto).update(QLinear=QLinear, qint8="qint8", qfloat8="qfloat8")
    optimum = ModuleType("optimum")
    optimum.quanto = quanto  # type: ignore[attr-defined]
    for name, module in (("bitsandbytes", bnb), ("optimum", optimum), ("optimum.quanto", quanto)):
        monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture(scope="module")
def demo() -> Any:
    return loaded()


def copied(pipe: Any) -> Any:
    """The pipe with a denoiser and a text encoder of its own."""
    made = copy.copy(pipe)
    made.register_modules(unet=copy.deepcopy(pipe.unet), text_encoder=copy.deepcopy(pipe.text_encoder))
    return made


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tiny")


def linear_layers(model: torch.nn.Module) -> dict[str, torch.nn.Linear]:
    return {name: m for name, m in model.named_modules() if isinstance(m, torch.nn.Linear)}


@pytest.mark.usefixtures("packages")
@pytest.mark.parametrize(("value", "cls"), [("bnb_nf4", Linear4bit), ("bnb_int8", Linear8bitLt)])
def test_bitsandbytes_layers_take_the_place_of_those_that_fit(value: str, cls: type, demo: Any) -> None:
    plain, pipe = linear_layers(demo.unet), copied(demo)
    fits = {n for n, m in plain.items() if value == "bnb_int8" or not (m.in_features % 64 or m.out_features % 32)}
    effect = build.apply(pipe, complete({"quantization": value}), WORKLOAD, "cpu")["quantization"]
    made = {name: m for name, m in linear_layers(pipe.unet).items() if isinstance(m, cls)}
    assert made.keys() == fits
    assert effect.count == len(fits) > 40
    for name, layer in made.items():
        assert layer.weight.dtype == (torch.uint8 if value == "bnb_nf4" else torch.int8)
        assert (layer.bias is None) == (plain[name].bias is None)
        assert layer.bias is None or torch.equal(layer.bias, plain[name].bias)
        assert not layer.training
    if value == "bnb_nf4":
        assert {layer.how["compute_dtype"] for layer in made.values()} == {torch.float32}
        assert {layer.weight.how["quant_type"] for layer in made.values()} == {"nf4"}


@pytest.mark.usefixtures("packages")
def test_quanto_layers_are_frozen(demo: Any) -> None:
    pipe = copied(demo)
    effect = build.apply(pipe, complete({"quantization": "quanto_fp8"}), WORKLOAD, "cpu")["quantization"]
    layers = linear_layers(pipe.unet).values()
    assert all(isinstance(layer, QLinear) for layer in layers)
    assert {(layer.kind, layer.frozen) for layer in layers} == {("qfloat8", True)}
    assert effect.count == len(layers)


@pytest.mark.usefixtures("packages")
def test_layers_that_t5_asks_for_their_format_stay_where_quantized_weights_hide_it(root: Path) -> None:
    """T5 casts what its layers `wo` are given to the format of their weights: to uint8, if those were packed."""
    pipe, effects = tiny_pipe("FluxPipeline", root, dtype="bf16", quantize_text_encoder="bnb_int8")
    layers = linear_layers(pipe.text_encoder_2)
    assert {name.rpartition(".")[2] for name, m in layers.items() if type(m) is torch.nn.Linear} == {"wo"}
    assert all(isinstance(m, Linear8bitLt) for m in linear_layers(pipe.text_encoder).values())
    assert effects["quantize_text_encoder"].count > 10
    taken = candidates(pipe.text_encoder_2, METHODS["int8_weight_only"], "cpu")
    assert any(name.endswith(".wo") for name in taken)


def test_the_predicted_bytes_are_those_of_the_methods_formats(monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer of 256 inputs and 128 outputs in bfloat16. NVFP4 asks for a Blackwell and runs no kernel of it."""
    monkeypatch.setattr("torchao.prototype.mx_formats.inference_workflow.is_sm_at_least_100", lambda: True)
    shape = (256, 128, 1)
    held = Footprint.of([Component(name="unet", weights=256 * 128, largest_layer=0, linear=(shape,))])
    [part] = held.in_format("bf16", 2).parts
    for value in ("int8_weight_only", "fp8_weight_only", "mxfp8_dynamic", "nvfp4_dynamic"):
        layer = torch.nn.Linear(256, 128, bias=False).bfloat16().requires_grad_(False)
        quantize_(layer, how(value, "cuda"))
        stored, predicted = bytes_of(layer.weight), METHODS[value].weighs(part, [shape]).bytes
        assert 256 * 128 * METHODS[value].bits / 8 < stored <= predicted <= stored + 5 * 128, value
    packed = Params4bit(torch.zeros(128, 256)).to("cpu")
    assert METHODS["bnb_nf4"].weighs(part, [shape]).bytes == bytes_of(packed) == 128 * 256 // 2 + 128 * 256 // 64 * 4
    eight = Int8Params(torch.zeros(128, 256)).to("cpu")
    assert METHODS["bnb_int8"].weighs(part, [shape]).bytes == bytes_of(eight) == 128 * 256 + 4 * 128


@pytest.mark.parametrize(
    ("value", "device", "needed"),
    [
        ("int8_dynamic", gpu(8, 9), "a multiple of 8 inputs and of 8 outputs"),
        ("fp8_dynamic", gpu(8, 9), "a multiple of 16 inputs and of 16 outputs"),
        ("fp8_dynamic_row", gpu(8, 9), "a multiple of 16 inputs and of 16 outputs"),
        ("int4_weight_only", gpu(8, 9), "a multiple of 64 inputs"),
        ("mxfp8_dynamic", gpu(12, 0), "a multiple of 32 inputs and of 16 outputs"),
        ("nvfp4_dynamic", gpu(12, 0), "a multiple of 16 inputs and of 16 outputs"),
        ("bnb_nf4", gpu(8, 9), "a multiple of 64 inputs"),
        ("bnb_nf4", CPU, "a multiple of 64 inputs and of 32 outputs"),
        ("bnb_int8", gpu(8, 9), "a multiple of 4 inputs"),
    ],
)
def test_sizes_that_a_method_does_not_take_are_refused_before_a_trial(value: str, device: Any, needed: str) -> None:
    odd = make_target(device, linear_shapes=((31, 64),))
    assert KNOB.why_not(value, odd) == f"no linear layer of UNet2DConditionModel has {needed}, as {value} needs"
    assert KNOB.why_not(value, make_target(device, linear_shapes=((31, 64), (128, 64)))) is None
    small = make_target(device, linear_shapes=((31, 1024), (128, 64)))
    config = complete({"quantization": value, "dtype": "bf16", "quantization_filter": "min_features:256"})
    assert KNOB.clash(config, small) == f"quantization_filter=min_features:256 selects no layer that has {needed}"


def test_sizes_of_text_encoders_are_those_of_their_own_layers() -> None:
    def target(*shapes: tuple[int, int, int]) -> Any:
        words = Component(name="text_encoder", weights=1, largest_layer=1, linear=shapes)
        return make_target(gpu(8, 9), text_encoders=("text_encoder",), components=(words,))

    said = "no linear layer of the text encoders has a multiple of 64 inputs, as bnb_nf4 needs"
    assert WORDS.why_not("bnb_nf4", target((100, 64, 3))) == said
    assert WORDS.why_not("bnb_nf4", target((100, 64, 3), (128, 64, 1))) is None


@pytest.mark.parametrize(
    ("value", "package"),
    [("bnb_nf4", "bitsandbytes"), ("bnb_int8", "bitsandbytes"), ("quanto_int8", "optimum-quanto"),
     ("mxfp8_dynamic", "torchao")],
)  # fmt: skip
def test_a_package_that_is_not_installed_is_named_with_its_installation(value: str, package: str) -> None:
    card = make_target(gpu(12, 0), text_encoders=("text_encoder",))
    target = card.model_copy(update={"versions": {"diffusers": "0"}})
    said = f"the package {package} is not installed: pip install {package}"
    assert KNOB.why_not(value, target) == said
    if METHODS[value].for_words:
        assert WORDS.why_not(value, target) == said
    there = target.model_copy(update={"versions": {"diffusers": "0", package: "1"}})
    assert KNOB.why_not(value, there) is None


@pytest.mark.parametrize(
    ("value", "device", "said"),
    [
        ("mxfp8_dynamic", gpu(9, 0), "needs compute capability 10.0; this GPU has 9.0"),
        ("nvfp4_dynamic", gpu(8, 9), "needs compute capability 10.0; this GPU has 8.9"),
        ("nvfp4_dynamic", CPU, "needs an NVIDIA GPU of compute capability 10.0"),
        ("mxfp8_dynamic", gpu(10, 0), None),
        ("bnb_nf4", gpu(7, 5), None),
        ("bnb_nf4", gpu(5, 2), "needs compute capability 6.0; this GPU has 5.2"),
        ("bnb_int8", gpu(7, 0), "needs compute capability 7.5; this GPU has 7.0"),
        ("bnb_int8", CPU, None),
        ("quanto_int8", gpu(7, 0), None),
    ],
)
def test_each_method_says_which_cards_it_runs_on(value: str, device: Any, said: str | None) -> None:
    assert KNOB.why_not(value, make_target(device)) == said


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"quantization": "bnb_nf4", "offload": "group"}, "without the scales that bitsandbytes keeps"),
        ({"quantization": "bnb_nf4", "offload": "sequential"}, "without the scales that bitsandbytes keeps"),
        ({"quantization": "bnb_nf4", "offload": "model"}, None),
        ({"quantization": "bnb_nf4", "compile": "regional", "dtype": "bf16"}, None),
        ({"quantization": "bnb_int8", "offload": "model"}, None),
        ({"quantization": "bnb_int8", "offload": "text_encoders"}, None),
        ({"quantization": "bnb_int8", "offload": "sequential"}, "hold them on the GPU, too"),
        ({"quantization": "bnb_int8", "offload": "group"}, "hold them on the GPU, too"),
        ({"quantize_text_encoder": "bnb_int8", "offload": "model"}, None),
        ({"quantize_text_encoder": "bnb_int8", "offload": "text_encoders"}, "hold them on the GPU, too"),
        ({"quantization": "bnb_int8", "compile": "regional"}, None),
        ({"quantization": "bnb_int8", "compile": "regional", "compile_mode": "max-autotune"}, "pick outliers"),
        ({"quantization": "quanto_int8", "dtype": "fp16"}, None),
        ({"quantization": "quanto_int8", "offload": "group"}, "without the scales that quanto keeps"),
        ({"quantization": "quanto_int8", "conv1x1_as_linear": True}, None),
        ({"quantization": "nvfp4_dynamic", "dtype": "fp16"}, "give bfloat16 only"),
        ({"quantization": "mxfp8_dynamic", "dtype": "bf16", "compile": "regional"}, None),
        ({"quantize_text_encoder": "bnb_nf4", "offload": "text_encoders"}, "without the scales"),
        ({"quantize_text_encoder": "bnb_int8", "compile": "denoiser", "compile_mode": "max-autotune"}, None),
        (EVERYTHING | {"quantize_text_encoder": "bnb_int8"}, "pick outliers"),
        (EVERYTHING | {"quantize_text_encoder": "bnb_nf4"}, None),
        (
            EVERYTHING
            | {"compile": "denoiser", "compile_encoders": "text_encoder", "quantize_text_encoder": "bnb_int8"},
            "pick outliers",
        ),
        ({"quantize_text_encoder": "int4_weight_only", "dtype": "fp16"}, "supports bfloat16 only"),
    ],
)
def test_clashes_of_other_packages(values: dict[str, Any], said: str | None) -> None:
    knob = KNOB if "quantization" in values else WORDS
    clash = knob.clash(complete(values), make_target(gpu(12, 0)))
    assert clash == said if said is None else said in str(clash)


@pytest.mark.usefixtures("packages")
@pytest.mark.parametrize("value", ["bnb_nf4", "bnb_int8", "quanto_int8"])
def test_the_plain_script_replaces_the_same_layers(value: str, demo: Any) -> None:
    for knob, name in ((KNOB, "quantization"), (WORDS, "quantize_text_encoder")):
        config = complete({name: value})
        ours, theirs = copied(demo), copied(demo)
        build.apply(ours, config, WORKLOAD, "cpu")
        target = make_target(CPU, text_encoders=("text_encoder",))
        script = knob.script(config, target) if knob.script else None
        assert script is not None
        assert script.why_not is None
        exec("\n".join([*script.imports, *script.lines]), {"pipe": theirs, "torch": torch})
        for mine, other in ((ours.unet, theirs.unet), (ours.text_encoder, theirs.text_encoder)):
            assert kinds_of(other) == kinds_of(mine)


def kinds_of(model: torch.nn.Module) -> dict[str, tuple[str, torch.dtype, int]]:
    """Name of a linear layer -> its class, and the format and the bytes of its weight."""
    layers = linear_layers(model).items()
    return {name: (type(m).__name__, m.weight.dtype, bytes_of(m.weight)) for name, m in layers}


@pytest.mark.usefixtures("packages")
def test_the_plain_script_leaves_out_what_the_measured_run_leaves_out(
    demo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Layers that a class keeps in float32, strictly or not, and those that share their weights with an embedding."""

    class Other(type(demo.unet)):  # type: ignore[misc]
        _keep_in_fp32_modules = ("time_embedding",)
        _keep_in_fp32_modules_strict = ("to_out",)

    config = complete({"quantization": "bnb_int8"})
    ours, theirs = copied(demo), copied(demo)
    for pipe in (ours, theirs):
        pipe.unet.__class__ = Other
        layer = pipe.unet.time_embedding.linear_2
        pipe.unet.lookup = torch.nn.Embedding(layer.out_features, layer.in_features)
        pipe.unet.mid_block.attentions[0].transformer_blocks[0].attn1.to_q.weight = pipe.unet.lookup.weight
    build.apply(ours, config, WORKLOAD, "cpu")
    assert KNOB.script is not None
    script = KNOB.script(config, make_target(CPU))
    exec("\n".join([*script.imports, *script.lines]), {"pipe": theirs, "torch": torch})
    plain = {name for name, kind in kinds_of(ours.unet).items() if kind[0] == "Linear"}
    assert "time_embedding.linear_1" in plain
    assert {f"mid_block.attentions.0.transformer_blocks.0.attn1.{n}" for n in ("to_q", "to_out.0")} <= plain
    assert kinds_of(theirs.unet) == kinds_of(ours.unet)


def test_an_8_bit_layer_takes_any_number_of_dimensions_and_moves_as_one() -> None:
    """bitsandbytes flattens 3 dimensions alone, and keeps what it computes with apart from the weight."""

    class Layer(torch.nn.Linear):
        def forward(self, given: torch.Tensor) -> torch.Tensor:
            assert given.dim() == 2, "as the search for outliers takes it"
            return super().forward(given)

    layer = movable(Layer)(4, 6)
    layer.weight.CB, layer.state = None, SimpleNamespace()
    plain = torch.nn.functional.linear(torch.ones(2, 3, 5, 4), layer.weight, layer.bias)
    assert torch.allclose(layer(torch.ones(2, 3, 5, 4)), plain)
    assert layer(torch.ones(4)).shape == (6,)
    assert layer(torch.ones(0, 3, 4)).shape == (0, 3, 6)
    layer.state.CB, layer.state.SCB = layer.weight.data, torch.ones(6)
    torch.nn.Sequential(layer).to("meta")
    assert {layer.state.CB.device.type, layer.state.SCB.device.type, layer.weight.device.type} == {"meta"}
    assert layer.state.CB is not None


def test_the_bias_of_a_quanto_layer_is_added_whatever_its_product_does_with_it() -> None:
    """That of fp8 on a GPU leaves it out (Marlin, in quanto 0.2.7)."""

    class Forgetful(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is torch.nn.functional.linear:
                return args[0] @ args[1].as_subclass(torch.Tensor).T
            return super().__torch_function__(func, types, args, kwargs or {})

    layer = with_bias_apart(torch.nn.Linear)(4, 6)
    layer.qweight = layer.weight.detach().as_subclass(Forgetful)
    given = torch.ones(2, 4)
    assert torch.allclose(layer(given), torch.nn.functional.linear(given, layer.weight, layer.bias))
    assert with_bias_apart(torch.nn.Linear)(4, 6, bias=False).bias is None


@pytest.mark.parametrize(
    ("values", "home"),
    [({}, "cuda:0"), ({"quantization": "bnb_nf4"}, "cpu"), ({"layerwise_casting": "float8_e4m3fn"}, "cpu")],
)
def test_random_weights_that_are_made_smaller_never_lie_on_the_gpu_all_at_once(
    values: dict[str, Any], home: str, demo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str]] = []
    pipe = copied(demo)

    def load(_: Any, *, device: str, drawn_on: str, **more: Any) -> Any:
        asked.append((device, drawn_on))
        return pipe

    monkeypatch.setattr("autotune.pipelines.loading.load", load)
    build.load(make_target().pipeline, complete(values), "cuda:0")
    assert asked == [(home, "cuda:0")]


def test_every_nearest_value_is_a_method_and_four_bits_stay_four_where_they_can() -> None:
    assert {other for method in METHODS.values() for other in method.nearest} <= METHODS.keys()
    assert KNOB.nearest["int4_weight_only"][0] == "bnb_nf4"
    assert KNOB.nearest["nvfp4_dynamic"][:2] == ("int4_weight_only", "bnb_nf4")


def test_denoisers_of_the_tiny_pipe_hold_what_is_counted(root: Path) -> None:
    """The count comes from the pipe, and the bytes are those that the weights take now."""
    pipe, effects = tiny_pipe("FluxPipeline", root, dtype="bf16", quantization="int8_weight_only")
    now = sum(bytes_of(m.weight) for m in linear_layers(parts.denoiser(pipe)).values())
    assert f"in {now:,} bytes instead of" in effects["quantization"].what
