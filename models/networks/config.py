"""What can be set of each network, and of Qscore. Frozen; unknown keys are refused."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from bundle.precision import Stored
from bundle.schema import Frozen

Activation = Literal["dice", "prelu", "sigmoid", "relu"]


class QscoreConfig(Frozen):
    """Smoothed click-through rate of each ad: (clicks + a) / (impressions + a + b)."""

    kind: Literal["qscore"]
    strength: float | None = Field(default=None, gt=0)
    """a + b, the impressions' worth of the prior. None: the maximum of the marginal likelihood (beta-binomial)."""


class LowRankConfig(Frozen):
    """A linear layer as two thin ones."""

    rank: int = Field(gt=0)
    """Values between them."""
    between: Activation | None = None
    """Activation of those values."""


class TableConfig(Frozen):
    """One embedding table: its numbers, fewer rows, a dimension of its own (models/networks/tables.py)."""

    values: Stored = "fp32"
    """What its rows are stored in where the network is served. The network computes with what is left of them then."""
    method: Literal["cut", "hash", "multi_hash", "quotient_remainder"] | None = None
    """How ids share rows. None: each has its own."""
    rows: int | None = Field(default=None, gt=0)
    """Rows of known ids: kept by a cut, hashed to, or of the remainders."""
    hashes: int = Field(default=2, ge=2, le=6)
    """Of multi_hash: rows that are summed."""
    combine: Literal["sum", "product"] = "product"
    """Of quotient_remainder."""
    dimension: int | None = Field(default=None, gt=0)
    """Of the stored rows, which an expansion brings to the network's."""

    @property
    def apart(self) -> bool:
        """Whether its rows do not fit into the array of all tables."""
        return self.method is not None or self.dimension is not None

    @model_validator(mode="after")
    def _consistent(self) -> "TableConfig":
        if (self.method is None) != (self.rows is None):
            raise ValueError(f"method and rows belong together, they are {self.method} and {self.rows}")
        return self


class EmbeddedConfig(Frozen):
    """What every network has."""

    embedding: int = Field(default=16, gt=0, le=4096)
    """Dimension of every id's embedding."""
    embedding_std: float = Field(default=0.1, gt=0)
    """Spread of initial embeddings. What matches history and ad learns from products of embeddings: from 0.01 it takes
    epochs to start (simulated data, AUC after one: 0.702 from 0.01, 0.757 from 0.1, 0.768 from 0.3)."""
    position_bias: bool = False
    """Add a learnt bias for the position an ad was shown at; online every candidate gets position 0's."""
    low_rank: dict[str, LowRankConfig] = Field(default_factory=dict)
    """Path of a linear layer, as in the network's state_dict -> its rank (models/networks/low_rank.py)."""
    tables: dict[str, TableConfig] = Field(default_factory=dict)
    """Tables that are not like the others, by name: the vocabulary, or buckets:FIELD of a field without one."""
    dropped_fields: tuple[str, ...] = ()
    """Fields with embeddings that are neither looked up nor stored: SIDE.FIELD, SIDE user, context, ad or a history."""


class LinearConfig(Frozen):
    """Linear functions of ids and numbers. Every field has weights of its own in each of its places."""

    position_bias: bool = False
    """Add a learnt bias for the position an ad was shown at; online every candidate gets position 0's."""
    cascade: bool = False
    """Add the log-odds of the ad's smoothed click-through rate, counted on the training split, as a number."""
    histories: bool = True
    """Read the behaviours. False: user, context and ad alone."""
    l1: float = Field(default=0.0, ge=0)
    """L1 by a proximal step; the weights of a number or an id that it reaches are exactly zero."""
    l21: float = Field(default=0.0, ge=0)
    """L2,1 alike: all weights of a feature leave together."""


class LrConfig(LinearConfig):
    """Logistic regression."""

    kind: Literal["lr"]


class MlrConfig(LinearConfig):
    """Mixed logistic regression (LS-PLM)."""

    kind: Literal["mlr"]
    pieces: int = Field(default=12, gt=0)
    """Logistic regressions, between which a softmax chooses."""
    std: float = Field(default=0.01, gt=0)
    """Spread of initial weights: equal pieces would stay equal."""
    prior: bool = False
    """Structure prior: the gate reads user, context and histories, the experts read the ad."""
    prior_steps: int | None = Field(default=None, gt=0)
    """With the prior: for so many steps, then everything is read. None: always."""

    @model_validator(mode="after")
    def _consistent(self) -> "MlrConfig":
        if self.prior_steps is not None and not self.prior:
            raise ValueError(f"prior_steps is {self.prior_steps}, but prior is false")
        return self


class DqmConfig(EmbeddedConfig):
    """User, ad and scene domains, each to one vector; the score is their inner product."""

    kind: Literal["dqm"]
    dimension: int = Field(default=32, gt=0)
    """Dimension of the three vectors."""
    hidden: tuple[PositiveInt, ...] = (128,)
    """Hidden layers of the user's and the ad's tower."""
    activation: Activation = "relu"
    dropout: float = Field(default=0.0, ge=0, lt=1)


class DeepConfig(EmbeddedConfig):
    """A multi-layer perceptron on top."""

    hidden: tuple[PositiveInt, ...] = Field(default=(200, 80), min_length=1)
    """Its layers."""
    activation: Activation = "dice"
    dropout: float = Field(default=0.0, ge=0, lt=1)


class GwenConfig(DeepConfig):
    """Group-wise embeddings: the fields of user, scene and ad, the mean behaviour of each history, and a network."""

    kind: Literal["gwen"]


class FmConfig(EmbeddedConfig):
    """Factorisation machine: a weight and a vector a value, inner products of all pairs of fields."""

    kind: Literal["fm"]


class WideDeepConfig(DeepConfig):
    """A linear model over ids and crosses of fields, and GwEN, jointly."""

    kind: Literal["wide-deep"]
    crosses: tuple[tuple[str, str], ...] = Field(min_length=1)
    """Pairs of fields SIDE.FIELD; SIDE is user, context, ad or the name of a history."""
    cross_rows: int = Field(default=100_000, gt=0, lt=2**31)
    """A cross has so many weights at most; where there are more pairs of values they are hashed."""


class FnnConfig(DeepConfig):
    """A network over the weights and vectors of a factorisation machine, which pretraining trains first."""

    kind: Literal["fnn"]


class PnnConfig(DeepConfig):
    """Products of fields in the first layer of a network."""

    kind: Literal["pnn"]
    products: Literal["inner", "outer"] = "inner"
    """inner: of all pairs of fields, in factorised form. outer: of the fields' sum with itself."""


class DeepFmConfig(DeepConfig):
    """A factorisation machine and a network over the same embeddings."""

    kind: Literal["deepfm"]


class DinConfig(DeepConfig):
    """Deep Interest Network: candidates attend to the user's behaviours."""

    kind: Literal["din"]
    attention: Literal["sum", "softmax"] = "sum"
    """sum: the paper's weights, not normalised. softmax: scaled by 1/sqrt(d), as in the authors' code."""
    attention_hidden: tuple[PositiveInt, PositiveInt] = (80, 40)
    """Layers of the activation unit."""
    attention_activation: Activation = "dice"


class DssmConfig(EmbeddedConfig):
    """Two towers into one space, compared by their cosine."""

    kind: Literal["dssm"]
    dimension: int = Field(default=32, gt=0)
    """Dimension of that space."""
    hidden: tuple[PositiveInt, ...] = (128,)
    """Hidden layers of both towers."""
    activation: Activation = "relu"
    dropout: float = Field(default=0.0, ge=0, lt=1)
    scale: float = Field(default=10.0, gt=0)
    """What the cosine is multiplied by at first."""
    ad_bias: bool = True
    """Add a bias of the ad, from its tower. It gains no AUC (validation, with and without: KuaiRand .7417 and .7417,
    simulated marketplace .7299 and .7316), but of DIN's best 10 more are among the best 1 % (.76 and .71; .93 and .91).
    """


class ColdConfig(DeepConfig):
    """A small network over gated fields and their crosses with the histories, to pre-rank by."""

    kind: Literal["cold"]
    hidden: tuple[PositiveInt, ...] = Field(default=(32, 16), min_length=1)
    """Layers of the network."""
    activation: Activation = "relu"
    fields: tuple[str, ...] = ()
    """Fields that are read: user.F, context.F, ad.F, history.H, cross.H. None given: all."""


class RelatedTask(Frozen):
    """Another label, learnt beside the one that is asked for: networks of its own over the same table."""

    label: str
    """Which: click, or a further label that the dataset names."""
    weight: float = Field(default=1.0, gt=0)
    """Of its cross-entropy in the loss."""
    transfer: Literal["none", "logit", "product"] = "none"
    """What the score takes from it. none: nothing, only the table and the shared layers are common. logit: its logit
    times a learnt number is added. product: the score's probability is that of both, p(related) · p(own | related)."""


class MtlConfig(EmbeddedConfig):
    """One lookup table, and a network a scene."""

    kind: Literal["mtl"]
    scene: str
    """Context field that tells scenes apart."""
    max_scenes: int = Field(default=16, gt=0)
    """Networks at most. The first is of all scenes that have none of their own: unknown ones, and those of the ids
    beyond."""
    shared: tuple[PositiveInt, ...] = ()
    """Layers that all scenes share, below their own."""
    star: bool = False
    """A scene's weights are common weights times its own, instead of its own alone."""
    related: RelatedTask | None = None
    """A task to learn beside the asked one."""
    hidden: tuple[PositiveInt, ...] = Field(default=(200, 80), min_length=1)
    """Layers of each scene's network."""
    activation: Activation = "relu"
    dropout: float = Field(default=0.0, ge=0, lt=1)


class DicmConfig(DeepConfig):
    """Deep image CTR model: the fixed vectors of the ad's and the behaviours' images, reduced and attended to."""

    kind: Literal["dicm"]
    vectors: str | None = None
    """Ad field whose vectors are read. None: the only one that has some."""
    reduction: tuple[PositiveInt, ...] = Field(default=(32, 12), min_length=1)
    """Layers that reduce a vector; the last is the dimension that is left."""
    queries: Literal["both", "image"] = "both"
    """What asks the behaviours' images. both: the ad's image and the ad's fields, each with weights of its own."""
    attention: Literal["sum", "softmax"] = "softmax"
    """As DIN's."""
    attention_hidden: tuple[PositiveInt, PositiveInt] = (16, 8)
    """Layers of each activation unit."""
    attention_activation: Activation = "dice"


NetworkConfig = (
    LrConfig
    | MlrConfig
    | DqmConfig
    | GwenConfig
    | FmConfig
    | WideDeepConfig
    | FnnConfig
    | PnnConfig
    | DeepFmConfig
    | DinConfig
    | DssmConfig
    | ColdConfig
    | MtlConfig
    | DicmConfig
)
ModelConfig = Annotated[QscoreConfig | NetworkConfig, Field(discriminator="kind")]
