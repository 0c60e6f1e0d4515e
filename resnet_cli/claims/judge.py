"""Judge a paper's claims by the measurements of one profile."""

from dataclasses import replace
from pathlib import Path

from resnet_cli.claims import he2016, veit2016
from resnet_cli.claims.evidence import Evidence, Trainings, offered_commands, read_trainings
from resnet_cli.claims.verdict import Claim, Judgement, NotMeasuredError, all_of
from resnet_cli.runtime.errors import UserError

CLAIMS: dict[str, tuple[Claim, ...]] = {"he2016": he2016.CLAIMS, "veit2016": veit2016.CLAIMS}
"""Every claim of each paper, in the paper's order."""


def judge_all(
    paper: str, folder: Path, profile: str, trainings: Trainings | None = None
) -> list[Judgement]:
    """Judge all claims of a paper.

    Args:
        folder: `results/<paper>/<profile>`.
        trainings: used instead of those in the folder's tables.

    Raises:
        UserError: a table cannot be read.
    """
    trainings = read_trainings(folder) if trainings is None else trainings
    evidence = Evidence(paper, profile, folder, trainings)
    return [judge(claim, replace(evidence, read=[])) for claim in CLAIMS[paper]]


def judge(claim: Claim, evidence: Evidence) -> Judgement:
    """Judge one claim.

    Args:
        evidence: with an empty list of what was read.

    Raises:
        UserError: a table cannot be read, or has rows that no measurement gives.
    """
    try:
        parts, reason = tuple(claim.judge(evidence)), None
    except NotMeasuredError as error:
        parts, reason = (), error.reason
    except UserError:
        raise
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        # Valid tables that no measurement gives, such as with a unit that does not exist.
        raise UserError(
            f"{evidence.folder}: the tables for the claim on {claim.source} lack rows or were "
            f"changed ({type(error).__name__}); measure them again"
        ) from error
    verdict = all_of(part.verdict for part in parts) if parts else "not measured"
    missing = not parts or any(part.verdict == "not measured" for part in parts)
    commands = offered_commands(claim.paper, evidence.profile, claim.needs)
    seeds = [count for _, _, count in evidence.read]
    return Judgement(
        claim,
        evidence.profile,
        verdict,
        parts,
        reason,
        commands if missing and reason is None else (),
        tuple(sorted({data for data, _, _ in evidence.read if data})),
        tuple(dict.fromkeys(network for _, network, _ in evidence.read if network)),
        (min(seeds), max(seeds)) if seeds else None,
    )
