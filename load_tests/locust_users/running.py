"""The beginning and the end of a test, in each process that locust runs."""

import logging
from typing import Final
from weakref import WeakKeyDictionary

import gevent
from locust.env import Environment
from locust.runners import LocalRunner, MasterRunner, WorkerRunner

from load_tests.locust_users.admin import Admin, AdminFailed
from load_tests.locust_users.announcing import Announcer, Listener
from load_tests.locust_users.options import Options
from load_tests.locust_users.swap_table import prepared
from load_tests.locust_users.swapping import Swapper
from load_tests.locust_users.table import Table, TableUnusable
from load_tests.locust_users.traffic import TRAFFIC, Traffic

UNUSABLE: Final = 2  # the exit code where a test could not begin
_ANNOUNCERS: Final[WeakKeyDictionary[Environment, Announcer]] = WeakKeyDictionary()
_SWAPPERS: Final[WeakKeyDictionary[Environment, Swapper]] = WeakKeyDictionary()
_log = logging.getLogger(__name__)


def listen(environment: Environment, **_: object) -> None:
    """Registers the messages between the process that swaps and those that look up; once in each process."""
    logging.getLogger("httpx").setLevel(logging.WARNING)
    if isinstance(environment.runner, LocalRunner | WorkerRunner):
        Listener(environment.runner)
    if isinstance(environment.runner, LocalRunner | MasterRunner):
        _ANNOUNCERS[environment] = Announcer(environment.runner)


def begin(environment: Environment, **_: object) -> None:
    """Before the first user starts: the table and the questions; in one process alone also the swaps."""
    TRAFFIC.pop(environment, None)
    environment.process_exit_code = None
    try:
        _begin(environment)
    except (AdminFailed, TableUnusable, ValueError) as error:
        _log.error("the test cannot begin: %s", error)
        environment.process_exit_code = UNUSABLE
        if isinstance(environment.runner, LocalRunner | MasterRunner):
            gevent.spawn(environment.runner.quit if environment.web_ui is None else environment.runner.stop)


def _begin(environment: Environment) -> None:
    assert environment.parsed_options is not None
    options = Options.of(environment.parsed_options)
    host = (environment.host or "").rstrip("/")
    runner = environment.runner
    if options.swap_every and environment in _ANNOUNCERS:
        _begin_swaps(environment, host, options)
    table = Table.read(host, looked_up(options))
    if isinstance(runner, LocalRunner | WorkerRunner):
        TRAFFIC[environment] = Traffic(host, options, table, runner.worker_index)


def looked_up(options: Options) -> str:
    """The name of the table that users look up."""
    if not options.swap_every:
        return options.table
    return options.swap_table or (options.table if options.swap_versions else f"{options.table}-swap")


def _begin_swaps(environment: Environment, host: str, options: Options) -> None:
    if options.token is None:
        raise TableUnusable("--swap-every needs --token: the token of the admin API")
    admin = Admin(host, options.token)
    table = prepared(host, admin, options)
    _SWAPPERS[environment] = Swapper(environment, _ANNOUNCERS[environment], admin, table, options)


def end(environment: Environment, **_: object) -> None:
    """After the last user has ended."""
    swapper = _SWAPPERS.pop(environment, None)
    if swapper is not None:
        swapper.end()
