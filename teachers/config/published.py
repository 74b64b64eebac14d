"""What a recipe can say of teachers that come as files of another program: Hugging Face, timm, ONNX."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from .any_teacher import OutputKind
from .detecting import AskedInWords, DecodedGraph
from .outputs import NetworkTeacher, TorchTeacher
from .preprocess import HOW_IT_WAS_FED, Preprocess, of_a_network

DtypeName = Literal["auto", "float32", "bfloat16", "float16"]
AttentionName = Literal["sdpa", "eager", "flash_attention_2"]


class FedByItsFiles(TorchTeacher):
    """Whose files say how its inputs are made."""

    @model_validator(mode="after")
    def has_a_preprocess_of_its_own(self) -> Self:
        if self.preprocess != Preprocess():
            raise ValueError("its files say how it is fed: leave `preprocess` out")
        return self


class HuggingFaceTeacher(FedByItsFiles, AskedInWords):
    """A folder of Hugging Face's transformers with a head: classes or numbers of texts, of pairs of texts, or of images, or boxes in images. Nothing is fetched from a hub."""

    kind: Literal["huggingface"]
    path: str
    """The folder, as `save_pretrained` or a download leaves it: `config.json`, `*.safetensors`, and `tokenizer.json` or `preprocessor_config.json`. Its files count by content, but for `*.md` and what begins with a dot."""
    columns: list[str] | None = Field(None, min_length=1, max_length=2)
    """The text column that it reads, or the two that are a pair, or the image column; null: those that there are."""
    max_length: int | None = Field(None, ge=1, le=65_536)
    """Tokens of a row, special ones too; of longer text the rest is cut off, which is counted and told. Null: as many as the model takes."""
    dtype: DtypeName = "auto"
    """What it computes in; `auto`: what its weights were saved in."""
    attention: AttentionName | None = None
    """Implementation of attention; null: what transformers takes for this model."""
    device_map: Literal["auto"] | None = None
    """`auto`: its layers spread over all GPUs of its replica (`resources: {gpus: 4}`), for what one cannot hold. Needs the package accelerate."""
    trust_remote_code: bool = False
    """Run the `*.py` in the folder, for an architecture that transformers does not have. This runs whatever code is in them, with all rights of this program."""
    allow_pickle: bool = False
    """Take a `pytorch_model.bin` where there is no safetensors file; it is read with weights_only=True."""

    @model_validator(mode="after")
    def says_once_what_it_computes_in(self) -> Self:
        if self.precision != "float32":
            raise ValueError(
                "precision: its weights are brought to `dtype: bfloat16`, which says it all; leave `precision` out"
            )
        return self

    @model_validator(mode="after")
    def knows_its_classes_from_one_place(self) -> Self:
        if self.asked_for and self.classes is not None:
            raise ValueError("`prompts` and `examples` say which classes it looks for: leave `classes` out")
        return self

    @property
    def output(self) -> OutputKind:
        return "logits"


class TimmTeacher(FedByItsFiles):
    """An image network of timm, with weights from a file; size, crop, interpolation and normalisation are its own. Nothing is fetched from a hub."""

    kind: Literal["timm"]
    weights: str
    """`*.safetensors`, or `*.pt`, `*.pth` or `*.bin` (read with weights_only=True); or the folder of a download, whose `config.json` says the architecture and how it is fed."""
    architecture: str | None = None
    """Its name in timm, with the tag of its weights, which says how they were fed: `resnet50.a1_in1k`. Null: a folder says it."""
    arguments: dict[str, Any] = {}
    """Further keyword arguments of `timm.create_model`."""
    strip_prefix: str | None = None
    """Taken off the front of every tensor's name, for example `module.`."""
    allow_pickle: bool = False
    """Unpickle a file that holds more than tensors. This runs whatever code is in it."""

    @property
    def output(self) -> OutputKind:
        return "logits"


class OnnxTeacher(NetworkTeacher, DecodedGraph):
    """A graph in an ONNX file, computed by onnxruntime."""

    kind: Literal["onnx"]
    path: str
    """The file. It counts by content, as do the files of its tensors beside it."""
    inputs: dict[str, str] | None = None
    """Input of the graph: what `preprocess` makes under that name, or a column. Null: a graph with one input gets what there is; `input_ids`, `attention_mask` and `token_type_ids` are made of `preprocess.tokenizer`."""
    graph_output: str | None = None
    """Name of the graph's output that holds its numbers, `[rows, classes]`; null: its only one."""
    output: OutputKind
    """What its numbers are."""

    @model_validator(mode="after")
    def is_told_how_it_was_fed(self) -> Self:
        of_a_network(self.preprocess)
        if self.decode is not None and (self.preprocess.function or self.preprocess.text or self.preprocess.image_size):
            raise ValueError(
                "`decode` is of images, which are fitted as `fit` says: leave `preprocess` but for `normalise` and `resize` out"
            )
        if self.decode is not None and (self.inputs or self.graph_output or self.outputs):
            raise ValueError(
                "`decode` says what all of the graph's outputs are: leave `inputs`, `graph_output` and `outputs` out"
            )
        if not self.preprocess.is_stated and self.preprocess.text is None:
            raise ValueError(f"say how the graph was fed when it was trained: {HOW_IT_WAS_FED}")
        return self
