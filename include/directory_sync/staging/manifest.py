"""The manifest, which makes an attempt's folder in staging exist."""

from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

STAGED_FORMAT = 1
"""The format of what this release writes into staging. Manifests without one are of format 1. A new
field or file that an earlier release would stumble over, or leave out, needs the next number.
"""


class StagedFile(BaseModel):
    """What the manifest says of one file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: Annotated[int, Field(ge=0)]
    sha256: str


class Manifest(BaseModel):
    """manifest.json, which is written last into an attempt's folder. A file that it doesn't name
    doesn't exist.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    """The folder's own URL, without a slash at its end."""
    task: str
    run_id: str
    sync: str
    user_pool_id: str
    snapshot_at: AwareDatetime
    """When the listing of users began: the time of the whole snapshot."""
    seconds: float
    """How long the task took."""
    files: dict[str, StagedFile]
    counts: dict[str, int]
    complete: bool
    """Whether every listing behind these files ended by itself."""
    incomplete_reasons: tuple[str, ...] = ()
    inputs: dict[str, str] = {}
    """Manifests, by task, that these files were made from."""
    reused: str | None = None
    """The manifest of the same task in another run, where this run uses its files and listed
    nothing itself.
    """
    needs: tuple[str, ...] = ()
    """Folders of other runs that stay as long as this one: the plans that an undo takes back, or
    that a review asks about.
    """
    format: int = 1
    """STAGED_FORMAT of the release that wrote it."""
    release: str = ""
    """The release that wrote it; empty before 0.1.0."""

    @property
    def reference(self) -> dict[str, Any]:
        """What goes through XCom: where the files are, and counts."""
        # Airflow keeps XCom in its database, for everybody who may see the DAG's runs.
        return {"manifest": self.url, **self.counts}
