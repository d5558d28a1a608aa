"""The control plane's sockets: channel states go out ahead of their time, reports come in.

    XPUB ──► base station, devices     a state an interval, and again for each new subscriber
    PULL ◄── devices                   what a device applied, with which backend, and when

One thread owns both sockets. What is in force is a pure function of the plan and of the time, so
other threads only replace the plan, and read. A plan is stored before a state of it is announced: a
restart goes on with it.
"""

from __future__ import annotations

import math
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType

import zmq

from orchestrator import selection
from orchestrator.contracts import channel_state, curve_keys, device_report
from orchestrator.contracts.channel_state import Param
from orchestrator.contracts.http import Emulation, Status
from orchestrator.contracts.policy import PolicySpec
from orchestrator.contracts.verification import Verification
from orchestrator.control.device_reports import AppliedInterval, DeviceReports
from orchestrator.control.in_force import InForceStore
from orchestrator.control.link_watch import LinkWatch
from orchestrator.control.replay_board import ReplayBoard
from orchestrator.control.timeline import LEAD_S, Timeline, first_epoch
from orchestrator.control.verification_metrics import export, withdraw
from orchestrator.errors import InputError, StackError
from orchestrator.metrics import OrchestratorMetrics
from orchestrator.radio.profiles import MAX_DRAWN, Profile


class ControlPlane:
    """Runs the control plane between `with` and its end.

    Args:
        profile: the one to begin with, unless `store` has a plan of the same WDMOE_PROFILE.
        devices: how many the stack has; a profile has to have as many.
        metrics: where to count.
        keys_dir: folder of the CURVE keys; None turns CURVE off.
        store: where the plan in force is kept; None forgets it at the end.
        state_address, report_address: where to bind; a `*` for the port takes a free one.

    Attributes:
        replay: how far the newest one is.
        links: whether each is as it should be.

    Raises:
        InputError: the profile does not fit the stack, or `store` is damaged.
        StackError: an address cannot be bound, or `store` not be written.
    """

    def __init__(
        self,
        profile: Profile,
        *,
        devices: int,
        metrics: OrchestratorMetrics,
        keys_dir: Path | None,
        store: InForceStore | None = None,
        state_address: str = f"tcp://*:{channel_state.STATE_PORT}",
        report_address: str = f"tcp://*:{channel_state.REPORT_PORT}",
    ) -> None:
        self._devices = devices
        self._metrics = metrics
        self._keys_dir = keys_dir
        self._addresses = (state_address, report_address)
        self._lock = threading.Lock()
        self._reports = DeviceReports()
        self.replay = ReplayBoard(metrics)
        self._verification: Verification | None = None
        self._announced = (0, -1)  # order of the last state sent
        self._last = b""
        self._stopping = False
        self._store = store
        self._switching = threading.Lock()
        self._check(profile, first_interval=0, allow_degraded=True)
        plan = store.restore(profile) if store is not None else None
        if plan is None:
            plan = Timeline(profile, first_epoch(time.time()), time.time() + LEAD_S)
        self._keep_profile(plan.profile)
        self._put_in_force(plan)
        self.links = LinkWatch(self._reports, devices, lambda: self._plan, metrics)

    def __enter__(self) -> ControlPlane:
        self._context = zmq.Context()
        self._states = self._context.socket(zmq.XPUB)
        self._states.xpub_verbose = 1  # report each subscriber, not only the first
        self._inbox = self._context.socket(zmq.PULL)
        self._authenticator = None
        if self._keys_dir is not None:
            names = ["orchestrator", "bs", *(f"device-{q}" for q in range(self._devices))]
            curve_keys.ensure(self._keys_dir, names)
            self._authenticator = curve_keys.authenticator(self._context, self._keys_dir)
        for sock, address in zip((self._states, self._inbox), self._addresses, strict=True):
            sock.linger = 0
            sock.maxmsgsize = 1 << 16
            if self._keys_dir is not None:
                curve_keys.curve_server(sock, curve_keys.load(self._keys_dir, "orchestrator"))
            try:
                sock.bind(address)
            except zmq.ZMQError as error:
                self._close()
                raise StackError(f"cannot listen on {address}: {error.strerror}") from None
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopping = True
        self._wake.send(b"\0")
        self._thread.join()
        self._wake.close()
        self._woken.close()
        self._close()

    @property
    def endpoints(self) -> tuple[str, str]:
        """Where states are to be had, and where reports go, as bound."""
        states = self._states.getsockopt_string(zmq.LAST_ENDPOINT)
        return states, self._inbox.getsockopt_string(zmq.LAST_ENDPOINT)

    @property
    def profile(self) -> Profile:
        """The profile in force."""
        with self._lock:
            return self._plan.profile

    def use(
        self, profile: Profile, *, first_interval: int = 0, allow_degraded: bool = False
    ) -> None:
        """Put a profile into force, LEAD_S from now, as the next epoch; the policy stays.

        Args:
            first_interval: where its fading begins, so that runs can be given the same channel.

        Raises:
            InputError: it has another number of devices than the stack; or it asks for delay,
                jitter or loss of a kernel without netem, and `allow_degraded` is not set; or it
                would take too long to come to the first interval.
            StackError: it cannot be stored; what was in force stays.
        """
        self._check(profile, first_interval=first_interval, allow_degraded=allow_degraded)
        with self._switching:
            self._keep_profile(profile)
            with self._lock:
                self._put_in_force(self._plan.with_profile(profile, first_interval, time.time()))
            if self._store is not None:
                self._store.remove_other_profiles(profile)
        self._wake.send(b"\0")

    def use_policy(self, name: str, params: Mapping[str, Param]) -> None:
        """Put a policy into force as the next epoch; profile and fading go on as they are.

        It begins LEAD_S from now or, where intervals are short, with the next one that was not
        announced yet.

        Raises:
            InputError: no such policy, or not with these parameters.
            StackError: it cannot be stored; what was in force stays.
        """
        if len(params) > channel_state.MAX_PARAMS:
            raise InputError(
                f"policy {name}: has {len(params)} parameters; "
                f"allowed: at most {channel_state.MAX_PARAMS}"
            )
        # Without a value, a parameter is as good as not given.
        complete = selection.find(name, params).model_dump(exclude_none=True)
        try:
            policy = channel_state.checked_policy(name, complete)
        except ValueError as error:  # parameters that a state cannot carry
            raise InputError(f"policy {name}: {error}") from None
        with self._switching, self._lock:
            plan = self._plan
            self._put_in_force(plan.with_policy(policy, self._unannounced(plan), time.time()))
        self._wake.send(b"\0")

    def status(self) -> Status:
        """What is in force, and what each device last reported."""
        with self._lock:
            plan, verification = self._plan, self._verification
        current = plan.state(plan.interval_at(time.time()))
        links = [
            self._reports.link(q, requested, plan.epoch, self.links.fault(q))
            for q, requested in enumerate(current.devices)
        ]
        return Status(
            profile=current.profile,
            profile_sha256=current.profile_sha256,
            profile_text=plan.profile.text,
            seed=plan.profile.spec.seed,
            epoch=current.epoch,
            interval=current.interval,
            apply_at_s=current.apply_at_s,
            policy=PolicySpec(name=current.policy.name, params=dict(current.policy.params)),
            emulate=Emulation(**asdict(current.emulate)) if current.emulate else None,
            degraded=plan.profile.needs_netem and bool(self._reports.without_netem()),
            links=links,
            verification=verification.model_dump() if verification else None,
            replay=self.replay.status(),
        )

    def intervals(self, since_s: float) -> list[AppliedInterval]:
        """What devices have applied since a Unix time, as far as it is remembered."""
        return self._reports.intervals(since_s)

    def verified(self, verification: Verification) -> None:
        """Keep what `wdmoe link verify` found; Prometheus is shown it as long as its profile."""
        with self._lock:
            self._verification = verification
        export(verification, self._metrics)

    def _close(self) -> None:
        if self._authenticator is not None:
            self._authenticator.stop()
        self._context.destroy(linger=0)

    def _keep_profile(self, profile: Profile) -> None:
        """Write what is long before the lock is taken that states wait for."""
        if self._store is not None:
            self._store.write_profile(profile)

    def _put_in_force(self, plan: Timeline) -> None:
        if self._store is not None:
            self._store.write(plan)
        self._plan = plan

    def _check(self, profile: Profile, *, first_interval: int, allow_degraded: bool) -> None:
        given = len(profile.spec.devices)
        if given != self._devices:
            raise InputError(
                f"profile {profile.name!r}: devices has {given} entries; allowed: "
                f"{self._devices}, as many as the stack has"
            )
        without = self._reports.without_netem()
        if profile.needs_netem and without and not allow_degraded:
            raise InputError(
                f"profile {profile.name!r} asks for delay, jitter or loss, but the kernel under "
                f"{', '.join(f'device-{q}' for q in without)} has no netem (backend tbf shapes "
                "rates only); allow_degraded applies the rates alone"
            )
        if not profile.can_begin_at(first_interval):
            raise InputError(
                f"first_interval is {first_interval}; allowed: 0 to {MAX_DRAWN} under "
                f"profile {profile.name!r}, whose fading remembers more intervals than that"
            )
        profile.devices(first_interval)  # the first draw takes longest, and not of the lead

    def _run(self) -> None:
        poller = zmq.Poller()
        for source in (self._states, self._inbox, self._woken):
            poller.register(source, zmq.POLLIN)
        while not self._stopping:
            ready = dict(poller.poll(self._announce()))
            if self._woken.fileno() in ready:
                self._woken.recv(64)
            if self._states in ready and self._states.recv().startswith(b"\1"):
                self._states.send(self._last)
            if self._inbox in ready:
                self._take(self._inbox.recv_multipart(copy=False))

    def _announce(self) -> int | None:
        """Send the states whose time has come; the milliseconds until the next one's has."""
        with self._lock:  # a policy begins with what was not announced
            plan = self._plan
            now = time.time()
            due = plan.due(self._unannounced(plan), now)
            for number in due:
                self._send(plan, number)
        if plan.profile.interval_s is None:
            return None
        return max(0, math.ceil((plan.begin_s(due.stop) - plan.lead_s - now) * 1000))

    def _unannounced(self, plan: Timeline) -> int:
        """A plan's first interval that no state was sent of; with the lock held."""
        epoch, interval = self._announced
        return interval + 1 if epoch == plan.epoch else plan.first

    def _send(self, plan: Timeline, interval: int) -> None:
        announced = plan.state(interval)
        self._last = channel_state.encode(announced)
        self._states.send(self._last)
        rate = self._metrics.link_requested_rate_bps
        if self._announced[0] != announced.epoch:
            rate.clear()
            verified = self._verification
            if verified is not None and verified.profile_sha256 != announced.profile_sha256:
                withdraw(self._metrics)
            info = {"profile": announced.profile, "sha256": announced.profile_sha256}
            self._metrics.profile.info(info)
            policy = announced.policy
            params = ",".join(f"{key}={value}" for key, value in policy.params.items())
            self._metrics.policy.info({"name": policy.name, "params": params})
        for number, device in enumerate(announced.devices):
            for direction, link in (("down", device.down), ("up", device.up)):
                if link.rate_bps is not None:
                    rate.labels(str(number), direction).set(link.rate_bps)
        self._metrics.interval.set(interval)
        self._announced = announced.order

    def _take(self, frames: list[zmq.Frame]) -> None:
        try:
            report = device_report.decode(b"".join(frame.bytes for frame in frames))
            if report.device >= self._devices:
                raise ValueError(f"no device {report.device}")
        except ValueError:
            self._metrics.refused_messages_total.labels("malformed").inc()
            return
        if self._keys_dir is not None and curve_keys.sender(frames[0]) != f"device-{report.device}":
            self._metrics.refused_messages_total.labels("impostor").inc()
            return
        self._reports.take(report)
