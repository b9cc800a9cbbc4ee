"""The commands.

Lives here: what a user types and sees; the only place that prints. May not live here: anything another room could need.
How it works: each command imports what it needs when it runs, since start-up time is a feature: `--help` must not wait
for an event loop to load. Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, and as
shells count signals: 130 Ctrl-C, 141 whoever read the output left before its end, as `| head` does.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from proxy import __version__
from proxy.accounts.hints import LongHelp, Parser

if TYPE_CHECKING:
    from proxy.outcome import Receipt
    from proxy.server.settings import Settings

_ABOUT = """\
A sidecar between applications and LLM providers: official SDKs talk to it unchanged, bytes pass through as they are,
every phase has a limit, and a stream that was cut never looks complete.
"""
_EXAMPLES = """\
examples:
  llm-proxy demo                                       see it work; needs no account and no configuration
  OPENAI_API_KEY=sk-... llm-proxy serve                then give http://127.0.0.1:8080/v1 to any OpenAI client
  ANTHROPIC_API_KEY=... llm-proxy serve                then give http://127.0.0.1:8080 to any Anthropic client
  LLM_PROXY_PROVIDER_VLLM=openai+http://10.0.0.5:8000/v1 llm-proxy serve
                                                       a server of your own; its models are called vllm/<model>
  llm-proxy check --model gpt-4o                       what this environment means, and where that model goes
  llm-proxy simulate --fault 'cut=3'                   a provider that breaks off, to try your agent against
  llm-proxy keys create ci --limits 'rpm=60 20usd/month'
                                                       a key for a client, and what it may use
  llm-proxy usage --since 7d --by key,model            what was used, and what it cost

Everything is configured by environment variables: `llm-proxy serve --help` lists them.
"""


def _settings_help() -> str:
    from proxy.catalog.load import VARIABLES
    from proxy.server.table import SETTINGS

    lines = ["variables:"]
    for setting in SETTINGS:
        default = f" [{setting.default}{' ' + setting.unit if setting.unit in ('seconds', 'bytes') else ''}]"
        lines += [f"  {setting.name}{default if setting.default else ''}", f"        {setting.what}"]
    lines += ["", "Credentials, keys, tokens and _HEADERS may come from a file: append _FILE to the name.", ""]
    lines += ["vendors' own variables, as their clients read them:", f"  {' '.join(VARIABLES)}"]
    lines += ["  HTTPS_PROXY HTTP_PROXY NO_PROXY", ""]
    return "\n".join(lines)


def _faults_help() -> str:
    from proxy.simulator import faults

    lines = [(faults.__doc__ or "").partition("The grammar.")[2].strip(), ""]
    lines += [f"  {name:<16}{word.meaning}" for name, word in faults.WORDS.items()]
    return "\n".join(lines) + "\n"


def _parser(serves: bool = False) -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = Parser(prog="llm-proxy", description=_ABOUT, epilog=_EXAMPLES, formatter_class=raw)
    parser.add_argument("--version", action="version", version=f"llm-proxy {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)

    def command(name: str, run: Any, what: str, about: str = "", more: Any = None) -> Any:
        added = commands.add_parser(name, help=what, description=about or what, formatter_class=raw, add_help=not more)
        added.set_defaults(run=run)
        if more:
            added.add_argument("-h", "--help", action=LongHelp, more=more)
        return added

    command(
        "serve",
        _serve,
        "run the sidecar",
        "Run the sidecar in the foreground. SIGTERM or Ctrl-C: take no more requests, let streams finish, tell the\n"
        "rest honestly; a second Ctrl-C stops at once. SIGHUP: read the configuration and its files again.",
        _settings_help,
    )
    if serves:  # nobody asks for another command, and all of them take 10 ms
        return parser
    check = command(
        "check",
        _check,
        "say what the configuration means, or all that is wrong with it",
        "Validate the configuration and print what `serve` would do, with secrets as fingerprints. Exit code 2 and\n"
        "all errors at once if it is wrong.",
    )
    check.add_argument("--model", action="append", default=[], metavar="NAME", help="where it goes; repeatable")
    check.add_argument("--json", action="store_true", help="print one JSON document")
    command(
        "demo",
        _demo,
        "see it work, without any account",
        "Start a simulated provider and the sidecar on free ports, stream an answer through both, show what was\n"
        "measured, then cut a stream to show its honest ending.",
    )
    simulate = command(
        "simulate",
        _simulate,
        "run the simulated provider alone",
        "A provider that speaks all formats and fails on request. Point a client, or the sidecar, at it:\n"
        "  llm-proxy simulate --port 9000 --pace 20\n"
        "  LLM_PROXY_PROVIDER_SIM=openai+http://127.0.0.1:9000/v1 llm-proxy serve",
        _faults_help,
    )
    simulate.add_argument("--host", default="127.0.0.1", help="address to listen at (127.0.0.1)")
    simulate.add_argument("--port", type=int, default=9000, help="port to listen at; 0 takes a free one (9000)")
    simulate.add_argument("--fault", default="", metavar="SPEC", help="what to do with every request, e.g. 'cut=3'")
    simulate.add_argument("--pace", type=float, metavar="N", help="events a second (as fast as they go)")
    simulate.add_argument("--replay", metavar="DIR", help="answer recorded requests from this folder")
    from proxy.accounts.arguments import add_commands
    from proxy.accounts.desk import Desk

    add_commands(command, Desk(os.environ, time.time, time.sleep, sys.stdout, sys.stderr, sys.stdin))
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    try:
        try:
            arguments = _parser((argv or sys.argv[1:]) == ["serve"]).parse_args(argv)
            code = int(arguments.run(arguments))
        except SystemExit as ended:  # argparse has said what there is to say
            code = ended.code if isinstance(ended.code, int) else 2
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT  # as shells count
    except BrokenPipeError:  # whoever read has left: nobody is to be told, and what was written is not all
        # The interpreter writes what is left when it ends, and would complain then, with a code of its own (120).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def _complain(sentences: Sequence[str], kind: str) -> None:
    for sentence in sentences:
        print(f"llm-proxy: {kind}: {sentence}", file=sys.stderr)


def _read_settings(environ: Mapping[str, str] = os.environ) -> Settings | list[str]:
    """The settings of `environ`, or all errors, certificates included. Warnings are shown, by a first start only."""
    from proxy.server.certificates import check_certificates
    from proxy.server.settings import ConfigurationError, read_settings

    is_first = environ is os.environ
    try:
        settings = read_settings(environ)
    except ConfigurationError as error:
        _complain(error.warnings if is_first else (), "warning")
        return error.errors
    _complain(settings.warnings if is_first else (), "warning")
    return check_certificates(settings) or settings


# --- serve and check --------------------------------------------------------------------------------------------------


def _serve(_: argparse.Namespace) -> int:
    from proxy.server import clearing

    settings: Settings | list[str]
    try:
        environ = clearing.taken_over(os.environ)
        settings = _read_settings(environ)
        if environ is os.environ and not isinstance(settings, list) and settings.clears_env:
            clearing.start_again(environ)
    except clearing.CannotClear as error:
        settings = [str(error)]
    if isinstance(settings, list):
        _complain(settings, "error")
        return 2
    from proxy.server.worker import run

    return run(settings, environ)


def _check(arguments: argparse.Namespace) -> int:
    settings = _read_settings()
    if isinstance(settings, list):
        if arguments.json:
            _print_json({"errors": settings})
        _complain(settings, "error")
        return 2
    from proxy.server import models, report

    settings, warnings = models.with_stored(settings)
    _complain(warnings, "warning")
    document = report.as_document(settings, tuple(arguments.model))
    if arguments.json:
        _print_json({"errors": [], **document})
    else:
        print(report.as_text(document))
    return 0


def _print_json(document: dict[str, Any]) -> None:
    import orjson

    print(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())


# --- simulate ---------------------------------------------------------------------------------------------------------


def _simulate(arguments: argparse.Namespace) -> int:
    import asyncio

    from proxy.simulator.faults import FaultError
    from proxy.simulator.provider import Simulator
    from proxy.simulator.replay import Replay, ReplayError

    spec = arguments.fault if arguments.pace is None else f"pace={arguments.pace:g} {arguments.fault}"
    try:
        simulator = Simulator(default=spec, replay=Replay(arguments.replay) if arguments.replay else None)
    except (FaultError, ReplayError) as error:
        _complain(error.problems if isinstance(error, FaultError) else [str(error)], "error")
        return 2
    try:
        asyncio.run(_simulate_until_stopped(simulator, arguments.host, arguments.port))
    except (OSError, OverflowError) as error:
        _complain([f"cannot listen at {arguments.host}:{arguments.port}: {error}"], "error")
        return 1
    return 0


async def _simulate_until_stopped(simulator: Any, host: str, port: int) -> None:
    import asyncio
    import signal

    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    port = await simulator.start(host, port)
    name = f"[{host}]" if ":" in host else host
    print(
        f"the simulated provider listens at http://{name}:{port}  (OpenAI clients: http://{name}:{port}/v1)", flush=True
    )
    try:
        await stopped.wait()
    finally:
        await simulator.close()


# --- demo -------------------------------------------------------------------------------------------------------------

_DEMO_TEXT = (
    "This answer comes from a simulated provider, through the sidecar, event by event. "
    "Not one byte of it was changed on the way."
)
_DEMO_SECONDS = 30.0  # for all of it; on any machine it takes about five


def _demo(_: argparse.Namespace) -> int:
    import asyncio

    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            return runner.run(_demonstrate())
        except (OSError, TimeoutError) as error:
            _complain([f"the demo did not come to its end: {error or 'it took too long'}"], "error")
            return 1


async def _demonstrate() -> int:
    import asyncio

    from proxy.server.settings import read_settings
    from proxy.server.worker import Worker
    from proxy.simulator.provider import Simulator

    simulator = Simulator()
    receipts: asyncio.Queue[Receipt] = asyncio.Queue()
    port = await simulator.start("127.0.0.1", 0)
    environ = {
        "LLM_PROXY_LISTEN": "127.0.0.1:0",
        "LLM_PROXY_ADMIN_LISTEN": "off",
        "LLM_PROXY_LOG": "off",
        "LLM_PROXY_PROVIDER_DEMO": f"openai+http://127.0.0.1:{port}/v1",
    }
    worker = Worker(read_settings(environ), (receipts.put_nowait,))
    try:
        await worker.start()
        print(f"provider  http://127.0.0.1:{port}  (simulated)\nsidecar   http://{worker.listening[0]}\n")
        async with asyncio.timeout(_DEMO_SECONDS):
            return await _show(worker.listening[0], receipts)
    finally:
        await worker.stop(0.0)
        await simulator.close()


async def _show(address: str, receipts: Any) -> int:
    client = _DemoClient(address)
    try:
        print("1. A stream, live:\n")
        whole = await client.stream(f'sim:pace=12 text="{_DEMO_TEXT}"') and _show_receipt(await receipts.get())
        print("2. Once more on the same connections:\n")
        again = await client.stream('sim:pace=30 text="Nothing had to be opened for this one."')
        again = _show_receipt(await receipts.get()) and again
        print("3. The provider breaks off in the middle:\n")
        ended = await client.stream(f'sim:pace=12 cut=8 text="{_DEMO_TEXT}"')
        complete = _show_receipt(await receipts.get())
    finally:
        client.close()
    if not whole or not again or ended or complete:
        _complain(["what was shown is not what should have happened"], "error")
        return 1
    print("A cut stream never looks complete: the client's SDK raises an error instead of returning half an answer.")
    print("What it used is known all the same, from what passed.")
    return 0


def _show_receipt(receipt: Receipt) -> bool:
    """Print what was measured. True if the receipt says that the answer was complete."""
    from proxy.outcome import Usage

    def ms(value: float | None) -> str:
        return "-" if value is None else f"{value:.1f} ms"

    attempt = receipt.attempts[-1] if receipt.attempts else None
    connection = "kept open from before" if attempt is not None and attempt.reused else "opened for this request"
    ending = "complete" if receipt.complete else f"{receipt.ended_kind}, by the {receipt.ended_by.value}"
    print(f"   first byte   {ms(receipt.first_byte_ms)}   first event {ms(receipt.first_event_ms)}", end="")
    print(f"   total {ms(receipt.total_ms)}")
    print(f"   passed       {receipt.events} events, {receipt.bytes_out} bytes")
    usage = receipt.usage or Usage()
    print(f"   tokens       {usage.input} in, {usage.output} out ({usage.source.value})")
    print(f"   upstream     connection {connection}")
    print(f"   ending       {ending}  [{receipt.letters}]\n")
    return receipt.complete


class _DemoClient:
    """As much of an HTTP client as the demo needs. An SDK would hide what is to be shown."""

    def __init__(self, address: str) -> None:
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._streams: Any = None

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()

    async def stream(self, model: str) -> bool:
        """Ask for a streamed chat, print its text as it comes. True if it ended as a complete answer does."""
        import asyncio

        import orjson

        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port)
        reader, writer = self._streams
        asked = {"model": model, "stream": True, "messages": [{"role": "user", "content": "Hello"}]}
        body = orjson.dumps(asked)
        head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        await reader.readuntil(b"\r\n\r\n")
        print("   ", end="", flush=True)
        is_done, rest = False, b""
        try:
            while size := int(await reader.readuntil(b"\r\n"), 16):
                *events, rest = (rest + (await reader.readexactly(size + 2))[:-2]).split(b"\n\n")
                for event in events:
                    is_done = _show_event(event) or is_done
            await reader.readexactly(2)
        except asyncio.IncompleteReadError:
            print("\n   [the connection was closed without the end of the message]", end="")
            is_done = False
        print("\n")
        return is_done


def _show_event(event: bytes) -> bool:
    """Print what one event says. True for the event that ends a complete answer."""
    import orjson

    data = event.partition(b"data:")[2].strip()
    if not data or data == b"[DONE]":
        return data == b"[DONE]"
    said = orjson.loads(data)
    if "error" in said:
        print(f"\n   [error event: {said['error'].get('message', 'no message')}]", end="", flush=True)
    for choice in said.get("choices", ()):
        print(choice.get("delta", {}).get("content") or "", end="", flush=True)
    return False
