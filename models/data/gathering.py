"""What one pass over the logs leaves in memory for fitting. It grows with distinct values, not with rows."""

import polars as pl

from bundle.schema import Kind
from models.data.counting import Counts, NumberSample
from models.data.layout import Layout
from models.data.prepared import SPLITS
from models.data.spec import DataError


class Gathered:
    """Counts over the training split, and which users and ads there are."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.users = Counts()
        """All users of the log, over all splits."""
        self.train_users = Counts()
        """Training impressions of each user."""
        self.train_ads = Counts()
        """Training impressions of each ad."""
        self.behaviour_ads = Counts()
        """Behaviours that are ads, of each ad: of the behaviour log, and of the lists that training rows have."""
        self.behaviour_values = {name: Counts() for name in layout.carried_fields}
        """Values that behaviours carry themselves, by ad feature."""
        self.values: dict[str, Counts] = {}
        """Values of the log's own features in training impressions, by column of the normalised log."""
        self.numbers: dict[str, NumberSample] = {}
        for name, feature in layout.log_features().items():
            if feature.kind in (Kind.CATEGORICAL, Kind.MULTIVALUED):
                self.values[name] = Counts()
            else:
                self.numbers[name] = NumberSample(log=feature.log)
        self.rows = [0] * len(SPLITS)
        self.last_train_time: int | None = None
        self._ads: list[pl.DataFrame] = []
        self._ads_pending = 0
        self._meets_ads = layout.ads is None
        self._logged = {
            column: max(history.max_length for history in layout.spec.histories if history.column == column)
            for column in layout.logged_columns
        }

    def add(self, frame: pl.DataFrame) -> None:
        """One piece of the normalised log."""
        train = frame.filter(pl.col("split") == 0)
        for split in range(len(SPLITS)):
            self.rows[split] += int((frame["split"] == split).sum())
        self.users.add(frame["user"])
        self.train_users.add(train["user"])
        self.train_ads.add(train["ad"])
        for name, counts in self.values.items():
            counts.add(train[name])
        for column, kept in self._logged.items():
            self.behaviour_ads.add(train[f"l:{column}"].list.tail(kept))
        for name, sample in self.numbers.items():
            sample.add(train[name].to_numpy(), train["row"].to_numpy())
        if len(train):
            last = int(train["time"].max())  # type: ignore[arg-type]
            self.last_train_time = last if self.last_train_time is None else max(last, self.last_train_time)
        if self._layout.ads is None:
            self._add_ads(frame)
        elif not self._meets_ads:
            self._meets_ads = not frame.join(self._layout.ads, on="ad", how="semi").is_empty()

    def add_behaviours(self, frame: pl.DataFrame) -> None:
        """One piece of the normalised behaviour log. Only what a training impression could see counts."""
        seen = frame.filter(pl.col("time") < self.last_train_time)
        if "ad" in seen.columns:
            self.behaviour_ads.add(seen["ad"])
        for name, counts in self.behaviour_values.items():
            counts.add(seen[f"f:{name}"])

    def _add_ads(self, frame: pl.DataFrame) -> None:
        described = _described(frame.select("ad", "split", pl.col("^[ft]:.*$"), pl.col("^bid$")))
        self._ads.append(described)
        self._ads_pending += len(described)
        if self._ads_pending > len(self._ads[0]) + 500_000:
            self._settle_ads()

    def _settle_ads(self) -> None:
        self._ads = [_described(pl.concat(self._ads))]
        self._ads_pending = len(self._ads[0])

    def ads(self) -> pl.DataFrame:
        """The normalised ads: the source's table, or each ad as training last described it.

        An ad that training never shows is taken from its last row of valid, or else of test.
        """
        if self._layout.ads is not None:
            return self._layout.ads
        self._settle_ads()
        return self._ads[0].drop("split")

    def check_ads(self) -> None:
        """DataError when no row of the log is of an ad of the table: the two speak of different ids."""
        ads, raw = self._layout.ads, self._layout.raw
        if ads is not None and raw.ads is not None and not self._meets_ads:
            raise DataError(
                f"{raw.log.file}: none of the ads of its {sum(self.rows)} rows is among the {len(ads)} of "
                f"{raw.ads.file} (column {self._layout.spec.ad!r})"
            )

    def check_splits(self) -> None:
        """DataError when a split that must not be empty is."""
        spec, file = self._layout.spec, self._layout.raw.log.file
        asked = {"train": True, "valid": spec.split.valid_from is not None, "test": spec.split.test_from is not None}
        firsts = {"valid": spec.split.valid_from, "test": spec.split.test_from}
        for name, rows in zip(SPLITS, self.rows, strict=True):
            if asked[name] and not rows:
                from_ = f" (split.{name}_from is {firsts[name]})" if name in firsts else ""
                from_ += f" (split.until is {spec.split.until})" if spec.split.until is not None else ""
                raise DataError(
                    f"{file}: split {name!r} is empty{from_}; rows: {dict(zip(SPLITS, self.rows, strict=True))}"
                )


def _described(rows: pl.DataFrame) -> pl.DataFrame:
    """One row an ad: the last of the earliest split that shows it, so no training row sees what came after training."""
    return rows.sort("split", descending=True, maintain_order=True).unique("ad", keep="last", maintain_order=True)
