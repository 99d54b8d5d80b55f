"""Whether a study plan lists this site, with its own key: checked before the plan is approved and before each run."""

from fedimb.deploy.home import NodeHome
from fedimb.deploy.pki import key_fingerprint, public_line
from fedimb.deploy.signing import load_key
from fedimb.deploy.study_plan.plan import StudyPlan


def own_fingerprint(home: NodeHome) -> str:
    """``SHA256:...`` of this site's key. Raises ConfigError if the key cannot be read."""
    return key_fingerprint(public_line(load_key(home.file("key"))), str(home.file("key")))


def plan_mismatch(home: NodeHome, plan: StudyPlan) -> str | None:
    """Why a plan is not for this site, in words for the coordinator; None if it lists the site with its key."""
    place = plan.place_of(home.site)
    if place is None:
        listed = ", ".join(site.name for site in plan.sites)
        return f"plan {plan.sha} is for {listed}, not for {home.site}: make a plan with this site"
    if plan.sites[place].fingerprint != (own := own_fingerprint(home)):
        return (
            f"plan {plan.sha} lists {home.site} with the key {plan.sites[place].fingerprint}, but its key is {own}: "
            "if the key was rotated, run fedimb deploy rotate and make a new plan; else call the coordinator"
        )
    return None


def join_mismatch(home: NodeHome, plan: StudyPlan, client: object, clients: object) -> str | None:
    """Why this site does not join a run under a plan as this client of so many; None if the plan says the same."""
    if reason := plan_mismatch(home, plan):
        return reason
    said = (plan.client_of(home.site), plan.n_clients)
    if (client, clients) != said or isinstance(client, bool) or isinstance(clients, bool):
        return f"it was asked as client {_shown(client)} of {_shown(clients)}; the plan makes it {said[0]} of {said[1]}"
    return None


def _shown(value: object) -> str:
    return str(value)[:20]
