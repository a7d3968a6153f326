"""The builders of the published data sets: thin shells around plain functions."""

import itertools
from collections.abc import Iterator

import numpy as np

from fluojax.data import manual
from fluojax.data.published import Entry, Published, Report, read_entries
from fluojax.data.published_sets import SETS, nothing_usable
from fluojax.data.storage.records import (
    ArrayRecordBuilder,
    features,
    tfds,
    to_example,
)


class _PublishedBuilder(ArrayRecordBuilder, skip_registration=True):
    """A published data set out of files that users fetch by hand.

    `info.metadata` keeps what a user should know: "lines" on files left out and
    decisions taken, and "objects", how many were read.
    """

    published: Published
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.published.configs[self.builder_config.name]
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.published.title,
            homepage=self.published.where.split()[0],
            citation=self.published.licence,
            features=features(
                np.dtype(self.published.dtype), config.channels, self.published.rank
            ),
            metadata=tfds.core.MetadataDict(lines=[], objects=0),
        )

    def _split_generators(self, dl_manager):
        config = self.builder_config.name
        root = manual.find_root(self.published, config, dl_manager.manual_dir)
        report = Report()
        entries = self.published.find_records(root, config, report)
        by_split: dict[str, list[Entry]] = {}
        for entry in entries:
            by_split.setdefault(entry.split, []).append(entry)
        started = {
            split: self._started(part, report) for split, part in by_split.items()
        }
        # tfds fails on a split without records.
        splits = {name: records for name, records in started.items() if records}
        if not splits:
            raise nothing_usable(self.published, config, report.lines())
        return {
            split: self._generate_examples(records, report)
            for split, records in splits.items()
        }

    def _started(self, entries: list[Entry], report: Report) -> Iterator | None:
        records = read_entries(self.published, entries, report)
        first = next(records, None)
        return None if first is None else itertools.chain([first], records)

    def _generate_examples(self, records: Iterator, report: Report) -> Iterator:
        for entry, record in records:
            yield entry.key, to_example(record, np.dtype(self.published.dtype))
        self.info.metadata.update(lines=report.lines(), objects=report.objects)


def _configs(published: Published) -> list[tfds.core.BuilderConfig]:
    return [tfds.core.BuilderConfig(name=name) for name in published.configs]


class FncV1(_PublishedBuilder):
    """Fluorescent Neuronal Cells v1; see `fluojax.data.fnc_v1`."""

    name = "fnc_v1"
    published = SETS[name]
    MANUAL_DOWNLOAD_INSTRUCTIONS = published.instructions
    BUILDER_CONFIGS = _configs(published)


class FncV2(_PublishedBuilder):
    """Fluorescent Neuronal Cells v2; see `fluojax.data.fnc_v2`."""

    name = "fnc_v2"
    published = SETS[name]
    MANUAL_DOWNLOAD_INSTRUCTIONS = published.instructions
    BUILDER_CONFIGS = _configs(published)


class Sbsst265(_PublishedBuilder):
    """Annotated fluorescence images of nuclei; see `fluojax.data.sbsst265`."""

    name = "sbsst265"
    published = SETS[name]
    MANUAL_DOWNLOAD_INSTRUCTIONS = published.instructions
    BUILDER_CONFIGS = _configs(published)


class Dsb2018(_PublishedBuilder):
    """Data Science Bowl 2018; see `fluojax.data.dsb2018`."""

    name = "dsb2018"
    published = SETS[name]
    MANUAL_DOWNLOAD_INSTRUCTIONS = published.instructions
    BUILDER_CONFIGS = _configs(published)


class Bbbc039(_PublishedBuilder):
    """Nuclei of U2OS cells; see `fluojax.data.bbbc039`."""

    name = "bbbc039"
    published = SETS[name]
    MANUAL_DOWNLOAD_INSTRUCTIONS = published.instructions
    BUILDER_CONFIGS = _configs(published)


class AtlasR2(_PublishedBuilder):
    """Lesions of strokes in 3-D; see `fluojax.data.atlas_r2`."""

    name = "atlas_r2"
    published = SETS[name]
    MANUAL_DOWNLOAD_INSTRUCTIONS = published.instructions
    BUILDER_CONFIGS = _configs(published)


PUBLISHED_BUILDERS = (FncV1, FncV2, Sbsst265, Dsb2018, Bbbc039, AtlasR2)
