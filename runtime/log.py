"""Log lines are data: JSON to stdout, or readable on a terminal; the standard library's go the same way."""

import logging
import sys

if "rich" not in sys.modules:
    # structlog would load it for a terminal's tracebacks: 3 MB of the 60 that an agent may have. What is None here
    # can't be imported; whoever wants rich afterwards can.
    sys.modules["rich"] = None  # type: ignore[assignment]
    import structlog

    del sys.modules["rich"]
else:
    import structlog

Logger = structlog.stdlib.BoundLogger


def configure(*, debug: bool = False) -> None:
    """Send structlog's and logging's lines through the same processors, to stdout."""
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer()
        if sys.stdout.isatty()
        else structlog.processors.JSONRenderer()
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                renderer,
            ],
        )
    )
    logging.basicConfig(
        handlers=[handler], level=logging.DEBUG if debug else logging.INFO, force=True
    )
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)


def logger(name: str) -> Logger:
    return structlog.stdlib.get_logger(name)
