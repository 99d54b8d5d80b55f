"""What verbs return: typed records, printed as one JSON object with ``--json``. docs/json.md lists them all.

A handler returns one of these. Its return annotation is the verb's documentation: the schema and the page come from it.
Only the file of a record that is asked for is imported: building the classes of all of them takes as long as NumPy.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedimb.cli.output.base import Failure, Output, Part
    from fedimb.cli.output.coordinator import (
        BundleWritten,
        CertificateRenewed,
        DeployDemo,
        DeploymentCreated,
        DeploymentStatus,
        DossierWritten,
        MissingArtefact,
        PlanWritten,
        SiteChanged,
        SiteStatus,
        StandbyTaken,
        StandbyWritten,
    )
    from fedimb.cli.output.models import Comparison, ModelsCompared, ModelsReport, PairTest
    from fedimb.cli.output.parts import (
        BenchCase,
        BenchCases,
        BenchResult,
        CheckLine,
        Checks,
        Combinations,
        CropsWritten,
        DataChecked,
        DataDescription,
        DataImported,
        FindingLine,
        ListedPart,
        NewPart,
        Pair,
        PartSetting,
        PartsListing,
        SplitWritten,
    )
    from fedimb.cli.output.people import (
        BatchClass,
        BatchDecided,
        BatchesListing,
        BatchShown,
        Cycle,
        FileChecked,
        ListedBatch,
        Worklist,
        WorklistsListing,
    )
    from fedimb.cli.output.runs import (
        Configuration,
        Cost,
        Deleted,
        ExplanationFound,
        ListedRun,
        ModelRegistered,
        Predicted,
        ReportWritten,
        RunExplained,
        RunFinished,
        RunsDeleted,
        RunsListing,
        RunUnfinished,
        Subgroup,
        TrackingSent,
    )
    from fedimb.cli.output.site import (
        Asked,
        AuditExported,
        AuditVerified,
        DataListing,
        DataRegistered,
        DataSet,
        DataVerified,
        DataWithdrawn,
        Decided,
        InboxListing,
        KeyRotated,
        LedgerShown,
        NodeChecked,
        NodeCreated,
        NodeStatus,
        PaperWritten,
        PinnedRun,
        PlanShown,
        ProofChecked,
        ProofWritten,
        VerifiedData,
        WaitingItem,
    )
    from fedimb.cli.output.studies import (
        Choice,
        DemoFinished,
        StudyFinished,
        StudyPlanned,
        StudyRegistered,
        SweepPlanned,
        TuningFinished,
        TuningPlanned,
    )

__all__ = [
    "Asked",
    "AuditExported",
    "AuditVerified",
    "BatchClass",
    "BatchDecided",
    "BatchShown",
    "BatchesListing",
    "BenchCase",
    "BenchCases",
    "BenchResult",
    "BundleWritten",
    "CertificateRenewed",
    "CheckLine",
    "Checks",
    "Choice",
    "Combinations",
    "Comparison",
    "Configuration",
    "Cost",
    "CropsWritten",
    "Cycle",
    "DataChecked",
    "DataDescription",
    "DataImported",
    "DataListing",
    "DataRegistered",
    "DataSet",
    "DataVerified",
    "DataWithdrawn",
    "Decided",
    "Deleted",
    "DemoFinished",
    "DeployDemo",
    "DeploymentCreated",
    "DeploymentStatus",
    "DossierWritten",
    "ExplanationFound",
    "Failure",
    "FileChecked",
    "FindingLine",
    "InboxListing",
    "KeyRotated",
    "LedgerShown",
    "ListedBatch",
    "ListedPart",
    "ListedRun",
    "MissingArtefact",
    "ModelRegistered",
    "ModelsCompared",
    "ModelsReport",
    "NewPart",
    "NodeChecked",
    "NodeCreated",
    "NodeStatus",
    "Output",
    "Pair",
    "PairTest",
    "PaperWritten",
    "Part",
    "PartSetting",
    "PartsListing",
    "PinnedRun",
    "PlanShown",
    "PlanWritten",
    "Predicted",
    "ProofChecked",
    "ProofWritten",
    "ReportWritten",
    "RunExplained",
    "RunFinished",
    "RunUnfinished",
    "RunsDeleted",
    "RunsListing",
    "SiteChanged",
    "SiteStatus",
    "SplitWritten",
    "StandbyTaken",
    "StandbyWritten",
    "StudyFinished",
    "StudyPlanned",
    "StudyRegistered",
    "Subgroup",
    "SweepPlanned",
    "TrackingSent",
    "TuningFinished",
    "TuningPlanned",
    "VerifiedData",
    "WaitingItem",
    "Worklist",
    "WorklistsListing",
]

_FILES = {
    "base": "Failure Output Part",
    "coordinator": """
        BundleWritten CertificateRenewed DeployDemo DeploymentCreated DeploymentStatus DossierWritten MissingArtefact
        PlanWritten SiteChanged SiteStatus StandbyTaken StandbyWritten
    """,
    "models": "Comparison ModelsCompared ModelsReport PairTest",
    "parts": """
        BenchCase BenchCases BenchResult CheckLine Checks Combinations CropsWritten DataChecked DataDescription
        DataImported FindingLine ListedPart NewPart Pair PartSetting PartsListing SplitWritten
    """,
    "people": """
        BatchClass BatchDecided BatchShown BatchesListing Cycle FileChecked ListedBatch Worklist WorklistsListing
    """,
    "runs": """
        Configuration Cost Deleted ExplanationFound ListedRun ModelRegistered Predicted ReportWritten RunExplained
        RunFinished RunUnfinished RunsDeleted RunsListing Subgroup TrackingSent
    """,
    "site": """
        Asked AuditExported AuditVerified DataListing DataRegistered DataSet DataVerified DataWithdrawn Decided
        InboxListing KeyRotated LedgerShown NodeChecked NodeCreated NodeStatus PaperWritten PinnedRun PlanShown
        ProofChecked ProofWritten VerifiedData WaitingItem
    """,
    "studies": """
        Choice DemoFinished StudyFinished StudyPlanned StudyRegistered SweepPlanned TuningFinished TuningPlanned
    """,
}
"""The records of each file of this folder."""
_FILE_OF = {name: file for file, names in _FILES.items() for name in names.split()}


if not TYPE_CHECKING:  # a type checker that saw it would accept any misspelt name

    def __getattr__(name: str) -> object:
        if name not in _FILE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{__name__}.{_FILE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
