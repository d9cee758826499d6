"""Every knob of one training run: its default, unit, range and source.

A knob has one name everywhere, its dotted name (`distill.temperature`): the command-line flag, the Optuna parameter,
the key in a Ray job and the MLflow parameter.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, make_dataclass
from typing import Any, Self

from ltsd.errors import UserError
from ltsd.knobs import Choices, Range, Value, admits, knob, nearest, override, walk
from ltsd.methods import METHODS
from ltsd.presets import BOXES, CIFAR, EMBEDDED, MAPS, SOUND, TEXT

OTHERS = {
    "other label maps": "segmentation",
    "other boxes": "detection",
    "sound": "speech",
    "texts": "text",
    "other data": "classification",
}
"""The tasks of paths and URIs, by what they hold."""
OF_TASKS = {"classification": CIFAR, "segmentation": MAPS, "detection": BOXES, "speech": SOUND, "text": TEXT}
"""The defaults of paths and URIs."""
PUBLISHED_WIDTHS = {
    "small-cnn": 32,
    "small-resnet": 16,
    "resnet18": 64,
    "preact-resnet18": 64,
    "wrn-34-10": 160,
    "small-unet": 16,
    "smp-unet": 16,
    "smp-fpn": 128,
    "smp-deeplabv3plus": 256,
    "smp-upernet": 256,
    "smp-segformer": 256,
    "small-fcos": 16,
    "mel-resnet": 8,
    "text-cnn": 64,
    "text-transformer": 64,
}
RENAMED = {"model.encoder_weights": "model.weights"}
"""Knobs by the names that checkpoints of earlier versions have for them."""
LIBRARIES = ("timm/NAME", "torchvision/NAME")
"""Libraries that bring classifiers, which have their own widths."""
ENCODER = "transformers/NAME"
"""An encoder of texts in a local folder, its NAME."""


@dataclass(frozen=True)
class DataConfig:
    """The images, and the length of their tail."""

    source: str = knob(
        "digits",
        "digits or digits-scenes (scikit-learn, embedded), cifar10, cifar100, or a path or URI (s3://bucket/folder): a "
        "Parquet or Arrow file or a folder of them, with columns image or img and label, labels or fine_label, or with "
        "masks in annotation, label or mask; or a local folder: of one folder of images per class, of images and "
        "masks, of COCO, PASCAL VOC or Tiny-ImageNet; or a JSON file of COCO, or a text file with the path and the "
        "label of an image a line; or CSV, TSV or JSON lines (.jsonl) with text and label",
    )
    root: str | None = knob(
        None,
        "the folder that the paths in a list of images are relative to, where --data.source is one",
        unset="the folder of the list",
    )
    config: str | None = knob(
        None,
        "the data set to read where a folder holds several: a configuration of its README.md, or the folder that it "
        "lies in",
        unset="the only one",
    )
    split_map: str | None = knob(
        None,
        "which splits train, validate and test, as in train=train+extra,validation=val,test=none; names of splits, of "
        "folders or of files without their ending",
        unset="as they are named",
    )
    labels: str = knob(
        "auto",
        "which labels are read of a source that has several kinds: boxes, or auto: classes, else masks, else boxes; of "
        "digits-scenes masks",
        choices=("auto", "boxes"),
    )
    duplicates: str = knob(
        "refuse",
        "what happens where more than 1% of a split's images are also in another one, pixel by pixel: refuse, or allow",
        choices=("refuse", "allow"),
    )
    finalists: str = knob(
        "train",
        "what final runs train on where the data bring a validation split: train, as results are published for most "
        "sets that do (ImageNet-LT, MedMNIST, PatchCamelyon); or train+validation",
        choices=("train", "train+validation"),
    )
    group_by: str | None = knob(
        None,
        "a column of Parquet or Arrow files that names what belongs together, such as the video of a frame; validation "
        "and test images that are held out do not share it with training images, or are away from them in time",
        unset="every image is by itself",
    )
    groups: str = knob(
        "thirds",
        "head, medium and tail: thirds of the classes by their training images; or, of data with one class an image, "
        "many-medium-few: classes with more than 100, with 20 to 100 and with fewer than 20 (Liu et al. 2019)",
        choices=("thirds", "many-medium-few"),
    )
    imbalance_ratio: float | None = knob(
        None,
        "images in the largest class over images in the smallest: balanced data are cut down to it; long-tailed data, "
        "and balanced ones of fewer than 250 images a class, are used as they are, unless it is given",
        at_least=1,
        unset="50",
        remedy="it is n_max / n_min; some code bases write its inverse",
    )
    tail: str = knob(
        "exponential",
        "profile of a simulated tail: exponential (Cui et al. 2019), or step: the first half of the classes keeps "
        "n_max images, the rest n_max / imbalance ratio (Buda et al. 2018, Cao et al. 2019)",
        choices=("exponential", "step"),
    )
    n_max: int | None = knob(
        None,
        "training images of the largest class of a simulated tail, which is the first one",
        at_least=2,
        unset="all it has",
    )
    val_per_class: int = knob(
        25, "validation images per class, disjoint from training, for simulated tails", at_least=1
    )
    val_fraction: float = knob(
        0.1,
        "share of every class held out for validation on naturally long-tailed data",
        above=0,
        below=1,
    )
    test_fraction: float = knob(
        0.3,
        "share of every class held out as test set where the source has none",
        above=0,
        below=1,
    )
    test_per_class: int | None = knob(
        None, "keep only so many test images per class", at_least=1, unset="the whole test set"
    )
    image_size: int | None = knob(
        None, "resize images to this many pixels a side", at_least=4, unset="their own; 64 if they differ"
    )
    image_height: int | None = knob(
        None, "resize them to this height, with --data.image-size as their width", at_least=4, unset="square"
    )
    sampling_rate: int = knob(8000, "samples a second that clips of sound are resampled to", at_least=1000)
    clip_seconds: float = knob(
        1.0, "length of clips of sound; longer ones are cut, shorter ones padded with zeros", above=0, at_most=60
    )
    vocabulary: int = knob(2000, "most word pieces that are learnt from the training texts", at_least=50)
    encoder: str | None = knob(
        None,
        "folder of a trained encoder of Hugging Face whose word pieces and vectors are read",
        unset="that of --model.name transformers/FOLDER; else they are learnt from the training texts",
    )
    tokens: int = knob(32, "word pieces of a text; longer ones are cut, shorter ones padded", at_least=4, at_most=512)
    decoded_gib: float | None = knob(
        None,
        "GiB on disk up to which images are stored decoded; more stay as they were encoded, and threads decode them as "
        "they are read: slower, with the same pixels",
        at_least=0,
        unset="what the disk of the cache has room for",
    )
    resident_gib: float | None = knob(
        None,
        "GiB of a split up to which it is copied to a GPU, or on a processor read straight from its file; more is "
        "brought batch by batch, ahead of the step that needs it, with the same results",
        at_least=0,
        unset="half of the free memory of the GPU, or of the machine's memory",
    )
    augmentation: str = knob(
        "none",
        "applied to training batches: crop-flip (padded by 4), and after it torchvision's RandAugment (2 operations, "
        "magnitude 9) or its AutoAugment policy for CIFAR-10; for segmentation also crop-flip-scale, by 0.5 to 2; "
        "for sound shift-gain-noise: by a tenth of its length, 6 dB, and noise at 10 to 40 dB below; "
        "spec-augment: beside that a span of time and a band of frequencies taken away; for texts "
        "word-dropout: each word piece is unknown with a probability of 0.1, and edits: before it half of the texts "
        "are misspelt or lack a word, half of these twice, and so on",
        choices=(
            "none",
            "crop-flip",
            "randaugment",
            "autoaugment",
            "crop-flip-scale",
            "shift-gain-noise",
            "spec-augment",
            "word-dropout",
            "edits",
        ),
    )


@dataclass(frozen=True)
class ModelConfig:
    """The architecture; teacher and student share it."""

    name: str = knob(
        "small-cnn",
        "small-cnn for 8x8 images; small-resnet for 32x32 on processors; resnet18 and preact-resnet18 with the CIFAR "
        "stem; wrn-34-10; any classifier of timm, the extra timm, as timm/convnext_atto, or of torchvision, as "
        "torchvision/resnet18; for segmentation small-unet, or smp-... of segmentation-models-pytorch, the extra smp; "
        "for detection small-fcos; for speech mel-resnet; for text text-cnn, or text-transformer, which wants adamw, "
        "or a trained encoder of Hugging Face in a local folder, as transformers/FOLDER",
        choices=(*PUBLISHED_WIDTHS, *LIBRARIES, ENCODER),
    )
    width: int | None = knob(
        None,
        "channels of the first stage; of smp-... at the end of the decoder",
        at_least=8,
        multiple_of=8,
        unset="as published, small-cnn 32, small-resnet 16, ResNets 64, WRN 160; small-unet, small-fcos and smp-unet "
        "16, smp-fpn 128, the other smp-... 256, mel-resnet 8, text-... 64",
        remedy="other widths take the slow paths of the convolutions, and crash some versions of them",
    )

    encoder: str | None = knob(
        None,
        "the encoder of an smp-... network, by its name in segmentation-models-pytorch, such as resnet34 or mit_b0",
        unset="resnet18",
    )
    weights: str | None = knob(
        None,
        "the network's first weights, of smp-... the encoder's: a local file, .safetensors or what torch.save wrote of "
        "a state_dict(), or a checkpoint of ltsd; or pretrained: those that timm, torchvision or "
        "segmentation-models-pytorch download; the last layer is drawn from the seed",
        unset="drawn from the seed",
    )

    @property
    def channels(self) -> int:
        """The width in use: the one set, or the published one."""
        return PUBLISHED_WIDTHS[self.name] if self.width is None else self.width

    @property
    def architecture(self) -> str:
        """The name in the list of networks: of one that a library brings `timm/NAME`, `torchvision/NAME` or
        `transformers/NAME`.
        """
        return next((family for family in (*LIBRARIES, ENCODER) if admits(family, self.name)), self.name)

    @property
    def folder(self) -> str:
        """The folder of an encoder of texts; "" for another network."""
        return self.name.partition("/")[2] if self.architecture == ENCODER else ""


@dataclass(frozen=True)
class AttackConfig:
    """The threat model, of images L-infinity in their range [0, 1], and the PGD that trains against it."""

    eps: float = knob(
        0.1,
        "radius of the perturbation; images lie in [0, 1], sound in [-1, 1], and the vectors of words have length 1",
        above=0,
        at_most=1,
        remedy="write 8/255, not 8: images lie in [0, 1]",
    )
    steps: int = knob(10, "PGD steps in training", at_least=1)
    step_size: float | None = knob(
        None,
        "size of a PGD step",
        above=0,
        at_most=1,
        unset="eps / 4",
        remedy="write 2/255, not 2: images lie in [0, 1]",
    )

    @property
    def resolved_step_size(self) -> float:
        """The step size in use: the one set, or eps / 4."""
        return self.eps / 4 if self.step_size is None else self.step_size


@dataclass(frozen=True)
class OptimConfig:
    """How weights are updated. The last three knobs are for networks that begin with trained weights, and are a group
    of the search by themselves, `fine-tune`.
    """

    optimizer: str = knob(
        "sgd",
        "of student and teacher: sgd, with momentum, or adamw, which wants learning rates near 1e-3, by --optim.lr and "
        "--teacher.lr",
        choices=("sgd", "adamw"),
    )
    schedule: str = knob(
        "step",
        "how the learning rate of student and teacher falls: step, to a tenth at 75% and again at 90% of the epochs; "
        "or cosine, to nothing at the end",
        choices=("step", "cosine"),
    )
    lr: float = knob(0.1, "highest learning rate", above=0, search=Range(0.2, 3.0, log=True, relative=True))
    momentum: float = knob(0.9, "SGD momentum; of AdamW beta 1", at_least=0, below=1)
    weight_decay: float = knob(
        5e-4, "L2 penalty; of AdamW decoupled", at_least=0, search=Range(1.0, 20.0, log=True, relative=True)
    )
    batch_size: int = knob(
        128, "images in a training batch", at_least=2, search=Choices((0.25, 0.5, 1.0), relative=True, least=8)
    )
    ema_decay: float = knob(
        0.0,
        "decay per step of the exponential moving average of the weights that is evaluated; 0: none",
        at_least=0,
        below=1,
        search=Choices((0.0, 0.9, 0.98, 0.99, 0.995)),
    )
    backbone_lr_scale: float = knob(
        1.0,
        "learning rate of the parameters outside of the head, as a share of that of the head; 0: they stay",
        at_least=0,
        search=Range(0.01, 1.0, log=True),
    )
    warmup_epochs: int = knob(
        0, "epochs in which the learning rate rises to its highest", at_least=0, search=Choices((0, 1, 2, 5))
    )
    clip_grad_norm: float = knob(
        0.0,
        "largest norm of the gradient of all parameters together; longer ones are cut down to it; 0: none is",
        at_least=0,
        search=Choices((0.0, 0.5, 1.0, 5.0)),
    )


@dataclass(frozen=True)
class TeacherConfig:
    """Stage 1: the balanced self-teacher (LTSD, section 4), with its own optimiser, so that students with different
    optimisers share a teacher.
    """

    epochs: int = knob(
        30, "epochs on the class-balanced resample", at_least=1, search=Choices((0.5, 1.0, 2.0, 4.0), relative=True)
    )
    lr: float = knob(0.1, "highest learning rate of the teacher", above=0)
    weight_decay: float = knob(5e-4, "L2 penalty of the teacher; of AdamW decoupled", at_least=0)
    batch_size: int = knob(128, "images in a training batch of the teacher", at_least=2)
    ema_decay: float = knob(
        0.0, "decay per step of the moving average of the teacher's weights that teaches; 0: none", at_least=0, below=1
    )
    backbone_lr_scale: float = knob(1.0, "the teacher's --optim.backbone-lr-scale", at_least=0)
    warmup_epochs: int = knob(0, "the teacher's --optim.warmup-epochs", at_least=0)
    clip_grad_norm: float = knob(0.0, "the teacher's --optim.clip-grad-norm; 0: none", at_least=0)
    adversarial: bool = knob(True, "train the teacher with PGD; false: on clean images")


@dataclass(frozen=True)
class BalanceConfig:
    """How strongly rare classes are favoured."""

    softmax_tau: float = knob(
        1.0,
        "exponent of the class prior in the balanced softmax (AT-BSL, REAT, LTSD)",
        at_least=0,
        search=Range(0.0, 2.0),
    )
    teacher_gamma: float | None = knob(
        None,
        "the teacher's resample holds int(gamma * n_min) images of every class; a sweep tries 1 and a quarter, half "
        "and all of the imbalance ratio",
        above=0,
        unset="half the imbalance ratio",
    )


@dataclass(frozen=True)
class AwpConfig:
    """Adversarial weight perturbation, around any method (Wu et al. 2020)."""

    gamma: float = knob(
        0.0,
        "relative size of the perturbation of the weights; 5e-3 as published, 0: none",
        at_least=0,
        search=Choices((0.0, 2.5e-3, 5e-3, 1e-2)),
    )


@dataclass(frozen=True)
class RobustltConfig:
    """A perturbation budget for each class, for any method that attacks (RobustLT; Zhang et al. 2026)."""

    strength: float = knob(
        0.0,
        "how far budgets differ: a, 0.3 as published; 0: every class has eps",
        at_least=0,
        at_most=1,
        search=Range(0.0, 0.4),
    )
    ramp: float = knob(0.8, "share of the epochs over which budgets grow from nothing: b", at_least=0, at_most=1)


@dataclass(frozen=True)
class EvaluateConfig:
    """Validation during training."""

    every: int = knob(5, "validate every so many epochs, and after the last", at_least=1)
    steps: int = knob(20, "steps of each attack in validation; fewer than 20 are as much longer", at_least=1)


MethodKnobs = make_dataclass(
    "MethodKnobs",
    [(group, kind, field(default_factory=kind)) for group, kind in (m.knobs for m in METHODS.values() if m.knobs)],
    frozen=True,
    namespace={"__module__": __name__, "__doc__": "The knobs of every method, a group each."},
)


@dataclass(frozen=True)
class Config:
    """One complete training run. `Config.preset(source)` gives the defaults for a source."""

    task: str = knob(
        "classification",
        "what is learnt: classification, one class an image; segmentation, one class a pixel; detection, boxes; "
        "speech, one class a clip of sound; text, one class a text",
        choices=("classification", "segmentation", "detection", "speech", "text"),
    )
    method: str = knob("ltsd", "training method", choices=tuple(METHODS))
    epochs: int = knob(100, "epochs of the student", at_least=1)
    precision: str = knob(
        "auto",
        "what networks compute in while they train: bf16, fp32, or auto: bf16 where the device multiplies in it; "
        "weights, losses and every exam are fp32",
        choices=("auto", "bf16", "fp32"),
    )
    seed: int = knob(0, "seed of weights, order, random starts", at_least=0, at_most=2**31 - 1)
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    attack: AttackConfig = field(default_factory=AttackConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    balance: BalanceConfig = field(default_factory=BalanceConfig)
    awp: AwpConfig = field(default_factory=AwpConfig)
    robustlt: RobustltConfig = field(default_factory=RobustltConfig)
    methods: Any = field(default_factory=MethodKnobs, metadata={"transparent": True})
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)

    @classmethod
    def preset(cls, source: str, task: str = "classification") -> Self:
        """Return the defaults for a source: the published CIFAR recipe, or the one measured on the digits.

        Args:
            source: a name, path or URI.
            task: what the labels are for; a name has the defaults of a task of its own, unless it serves for others.
        """
        named = EMBEDDED.get(source, {})
        return cls().override({"data.source": source, **named.get(task, named.get("", OF_TASKS[task]))})

    @classmethod
    def presets(cls) -> Mapping[str, Self]:
        """Return the defaults by kind of source, as `--help` shows them."""
        kinds = {name: cls.preset(name) for name in ("digits", "digits-scenes", "cifar100")}
        kinds |= {what: cls.preset("path", task) for what, task in OTHERS.items()}
        return {kind: preset.override({"data.source": "digits"}) for kind, preset in kinds.items()}

    @classmethod
    def recorded(cls, dotted: Mapping[str, Value]) -> Self:
        """Return the configuration in a checkpoint. Knobs that are younger have their defaults, which change nothing.

        Raises:
            UserError: as `override`.
        """
        return cls().override({RENAMED.get(name, name): value for name, value in dotted.items()})

    @property
    def own(self) -> Any:
        """The knobs of the trained method, an instance of its dataclass; None if it has none."""
        knobs = METHODS[self.method].knobs
        return getattr(self.methods, knobs[0]) if knobs else None

    def override(self, dotted: Mapping[str, Value]) -> Self:
        """Return a copy with some knobs set by dotted name.

        Raises:
            UserError: an unknown name (the message gives the nearest one), a wrong type, a value out of range.
        """
        known = self.flatten()
        for name in dotted:
            if name not in known:
                raise UserError(f"no configuration is named {name!r}{nearest(name, known)}")
        changed = override(self, dotted)
        if changed.model.folder and changed.data.encoder is None:
            return override(changed, {"data.encoder": changed.model.folder})
        return changed

    def flatten(self) -> dict[str, Value]:
        """Return all knobs as {dotted name: value}, in the order of declaration."""
        return {name: value for name, value, _, _ in walk(self)}
