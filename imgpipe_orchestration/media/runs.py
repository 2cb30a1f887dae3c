"""A run over a day's images: each goes through the chosen stages by itself, and none waits for the others.

While one image's file comes slowly, others are analysed and rendered, and what becomes due meanwhile joins. That of
other days joins too, because the next run waits for this one. A stage finds its work in the database and gets nothing
from the stage before, so each can be run alone and a re-execution resumes: an image goes through a step only when the
checklist says that the earlier steps are settled.
"""

import math
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress

from sqlalchemy import Connection

from imgpipe_orchestration.errors import ImgpipeError, LeaseLost
from imgpipe_orchestration.media import intake, pending, remake, store
from imgpipe_orchestration.media.describing import ask_others
from imgpipe_orchestration.media.lifecycle import UPLOADED
from imgpipe_orchestration.media.model import REPLACE_URLS, PendingStatus, Step, StepState
from imgpipe_orchestration.media.stages import RUN_SECONDS, Figures, Stage, analyse_again, analyse_anyway, drain, spends
from imgpipe_orchestration.media.steps.callback import callback, replace_urls
from imgpipe_orchestration.media.steps.resize import resize
from imgpipe_orchestration.media.steps.retrieve import retrieve
from imgpipe_orchestration.moderation.judging import Judges
from imgpipe_orchestration.storage.claims import Claim, State
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.storage.work import Outcome, note_times, work_through, working_as
from imgpipe_orchestration.telemetry import tracing
from imgpipe_orchestration.wiring.services import Services

_THREADS = 40
BATCH_SIZE = 200
"""Images that one run takes, but for those of further users that it takes on while it waits."""
SHARE = 12
"""Images of one user at once. Three users whose files come slowly leave places to others."""

_AGAIN_AT_ONCE = 10
"""Most images that one run retries, of those that failed and also of those whose analysis failed."""

_LOOK = 1.0
"""Seconds between looks for new uploads, and for temp URLs to replace, while images are worked on."""

_SOON = 10.0
"""Seconds that a run of the sensor takes for what is ordered again, while new uploads may wait for the next run."""

_DO: dict[Step, Callable[[Services, Claim], Figures]] = {
    Step.RETRIEVE_FILE: retrieve,
    Step.AI_VISUAL_ANALYSIS: analyse_anyway,
    Step.RESIZE_OPTIMIZE: resize,
    Step.UPDATE_CALLBACK: callback,
}

_REMAKE = {Step.AI_VISUAL_ANALYSIS: remake.make_analyses, Step.RESIZE_OPTIMIZE: remake.make_variants}


def take_through(
    services: Services, owner: str, day: str, chosen: Collection[str], *, anew: bool = False, urgent: bool = True
) -> dict[str, Stage]:
    """Take what is due of `day` through the chosen stages, then make again what is ordered for the day. What the run
    has claimed and not finished is given back at its end. With all stages, what is due of other days joins.

    Args:
        chosen: names of stages; the others are left to other runs.
        anew: a person or a backfill asks: order first what an older recipe or older questions made.
        urgent: false: analyses that are made again may take a day, and cost half.

    Returns:
        what each chosen stage did, in order.
    """
    again = {first for queue in store.AGAIN for first in services.claims.due_partitions(queue, limit=1)}
    # The sensor asks for today's run instead of one of a day that is not a partition any more.
    days = [day, *sorted(one for one in again if one < services.settings.media_first_day)]
    run = _Run(services, owner, day, chosen)
    stages = run.stages
    with working_as(services.claims, owner):
        with run.judges:
            run.work()
        for step, make in _REMAKE.items():
            if step in stages:
                if anew:
                    stages[step].figures["ordered_again"] = remake.order(services, day, step, urgent=urgent)
                for one in days:
                    seconds = RUN_SECONDS if anew and one == day else _SOON
                    stages[step].join(make(services, owner, one, seconds=seconds))
        run.replace_urls()
        if Step.AI_VISUAL_ANALYSIS in stages:  # last, for nobody waits for it
            compared = drain(services, owner, store.CANARY, ask_others, seconds=_SOON).outcome.done
            if compared:
                stages[Step.AI_VISUAL_ANALYSIS].figures["compared"] = len(compared)
    return stages


class _Run:
    """The images of one run, and what its stages did so far."""

    def __init__(self, services: Services, owner: str, day: str, chosen: Collection[str]) -> None:
        self._services = services
        self._owner = owner
        self._day = day
        self._steps = [step for step in Step if step in chosen]
        self.judges = Judges(services, owner, UPLOADED)
        self.stages: dict[str, Stage] = {name: Stage() for name in (*self._steps, REPLACE_URLS) if name in chosen}
        self._taken: list[Claim] = []
        self._at: dict[int, Step] = {}
        """The step that each image is at, or was at last."""
        self._looked = -math.inf
        self._deadline = time.monotonic() + RUN_SECONDS

    def work(self) -> None:
        """Take what is due, and what becomes due meanwhile, through the steps."""
        if not self._steps:
            return
        services, claims = self._services, self._services.claims
        if Step.RETRIEVE_FILE in self._steps:
            self._take_in()
        batch = claims.owned(store.MEDIA, self._owner)
        self._begin(batch)
        batch += self._take(self._day, _THREADS - len(batch))
        if batch:
            services.workshop.start()  # needed soon
        outcome = work_through(
            claims,
            store.MEDIA,
            batch,
            self._through,
            threads=_THREADS,
            deadline=self._deadline,
            on_failure=self._note,
            recorded=False,
            further=None if any(claim.losses for claim in batch) else self._further,
            share=SHARE,
        )
        self._account(outcome)
        if Step.RETRIEVE_FILE in self._steps:
            self.stages[Step.RETRIEVE_FILE].add({"claimed": len(self._taken)})
        if Step.AI_VISUAL_ANALYSIS in self._steps:
            self._heal()

    def _take_in(self) -> None:
        self.stages[Step.RETRIEVE_FILE].add({"registered": intake.take_in(self._services)})

    def _take(self, day: str, most: int, *, joining: bool = False, but: Collection[str] = ()) -> list[Claim]:
        """Claim what is due of a day: only as many as can begin at once, for then users take turns. A run that has its
        batch only takes on users of whom it has nothing: they do not wait for its slow files."""
        room = BATCH_SIZE - len(self._taken)
        if room <= 0:
            but, room = {*but, *(claim.tenant for claim in self._taken)}, most
        retries = max(0, _AGAIN_AT_ONCE - sum(claim.failures > 0 for claim in self._taken))
        taken = self._services.claims.claim(
            store.MEDIA,
            self._owner,
            min(most, room),
            partition=day,
            retries=retries,
            suspects=not joining,
            but=but,
        )
        self._begin(taken)
        return taken

    def _begin(self, taken: Sequence[Claim]) -> None:
        self._taken += taken
        if taken:
            _reopen(self._services, taken)

    def _further(self, free: int, full: Collection[str]) -> list[Claim]:
        looking = time.monotonic() - self._looked >= _LOOK
        if looking:
            self.replace_urls()
            if Step.RETRIEVE_FILE in self._steps and intake.first_new(self._services):
                self._take_in()
            self._looked = time.monotonic()
        taken = self._take(self._day, free, joining=True, but=full)
        if looking and len(self._steps) == len(Step):
            for day in reversed(self._services.claims.due_partitions(store.MEDIA)):
                taken += self._take(day, free - len(taken), joining=True, but=full)
        return taken

    def _through(self, claim: Claim) -> None:
        """Take one image through its pending steps, as far as the chosen ones lead."""
        with transaction(self._services.engine) as connection:
            states = store.checklist(connection, claim.item_id)
        if states.get(Step.RETRIEVE_FILE) is StepState.COMPLETED:
            self._judge(claim.item_id)
        for step in states:
            if _settled(step, states[step]):
                continue
            if step not in self._steps or states[step] is not StepState.PENDING:
                return
            stage = self.stages[step]
            if time.monotonic() >= self._deadline and claim.item_id in self._at:
                stage.outcome.left.append(claim)
                return
            self._at[claim.item_id] = step
            if step is Step.UPDATE_CALLBACK:  # which has the verdict in it
                self.judges.wait_for(claim.item_id)
            begun = time.monotonic()
            stage.began = stage.began or begun
            try:
                with tracing.span(step.value, item=claim.item_id, attempt=claim.attempt):
                    figures = _DO[step](self._services, claim)
            finally:
                ended = time.monotonic()
                stage.spent[claim.item_id] = ended - begun
                stage.outcome.seconds = ended - stage.began
            stage.add(figures)
            stage.outcome.done.append(claim)
            if step is Step.RETRIEVE_FILE:
                self._judge(claim.item_id)

    def _judge(self, media_id: int) -> None:
        """Begin to judge an image whose original is there, unless it has a verdict."""
        with transaction(self._services.engine) as connection:
            media = store.media_file(connection, media_id)
        if media.sha256:
            self.judges.begin(media_id, user_id=media.user_id, sha256=media.sha256)

    def _note(self, connection: Connection, claim: Claim, error: ImgpipeError, state: State) -> None:
        """Count the failed try of a step."""
        step = self._at.get(claim.item_id)
        if step is not None:  # else its checklist could not be read
            ended = StepState.FAILED if state is State.FAILED else StepState.PENDING
            store.step_ended(connection, claim, step, ended, counts=spends(error))

    def _account(self, outcome: Outcome) -> None:
        """Count what did not go well at the step where it happened, and what was not begun at the first one."""
        first = self._steps[0]
        self.stages[first].outcome.left += outcome.left
        for item, error in outcome.retried.items():
            self.stages[self._at.get(item, first)].outcome.retried[item] = error
        for item, error in outcome.failed.items():
            self.stages[self._at.get(item, first)].outcome.failed[item] = error
        for item in outcome.lost:
            self.stages[self._at.get(item, first)].outcome.lost.append(item)
        for step, stage in self.stages.items():
            if stage.spent:
                note_times(self._services.claims, store.MEDIA.name, step, stage.outcome, stage.spent)

    def _heal(self) -> None:
        """Analyse some finished images again whose analysis had failed. Until that succeeds the checklist keeps the
        step as failed, with the tries of the pipeline."""
        claims, stage = self._services.claims, self.stages[Step.AI_VISUAL_ANALYSIS]
        batch = claims.owned(store.HEALING, self._owner)
        batch += claims.claim(store.HEALING, self._owner, _AGAIN_AT_ONCE - len(batch))

        def again(claim: Claim) -> None:
            stage.add(analyse_again(self._services, claim, queue=store.HEALING))

        outcome = work_through(claims, store.HEALING, batch, again, threads=_AGAIN_AT_ONCE)
        stage.add({"healed": len(outcome.done), "still_to_heal": len(outcome.retried) + len(outcome.failed)})

    def replace_urls(self) -> None:
        """Finish uploads whose images our workers or others reported, or ours gave up."""
        if REPLACE_URLS in self.stages:
            self.stages[REPLACE_URLS].join(drain(self._services, self._owner, store.URLS, replace_urls))


def _settled(step: Step, state: StepState) -> bool:
    """Whether later steps may be done: a step is completed, or it is the analysis and failed."""
    return state is StepState.COMPLETED or (step is Step.AI_VISUAL_ANALYSIS and state is StepState.FAILED)


def _reopen(services: Services, batch: Sequence[Claim]) -> None:
    """Mark failed uploads whose items were requeued as pending, except those cleaned up since they were claimed."""
    with transaction(services.engine) as connection:
        ids = store.pending_ids(connection, [claim.item_id for claim in batch])
    is_failed = pending.in_state(PendingStatus.FAILED)
    with transaction(services.pending_engine) as connection:
        if not pending.find(connection, pending.t.c.id.in_(ids), is_failed, limit=1):
            return
    for claim in batch:
        with (
            suppress(LeaseLost),
            services.claims.fenced(claim) as connection,
            pending.joined(services, connection) as where,
        ):
            pending.mark(where, store.pending_ids(connection, [claim.item_id]), PendingStatus.PENDING, is_failed)
