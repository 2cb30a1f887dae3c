"""How Celery uses the broker, through which runs reach workers, and the store of the workers' reports."""

import ssl
from typing import Any
from urllib.parse import urlsplit

_SILENT_BROKER_SECONDS = 5
"""How long Redis may take to answer. One that hangs, or whose machine disappeared, would otherwise block the threads of
daemon and workers that start and watch runs, for minutes or for ever."""

_CONFIGURATION = {
    # A worker takes a run only when it can begin it, so that no run waits behind a long one while a worker is idle.
    "worker_prefetch_multiplier": 1,
    "worker_disable_prefetch": True,
    # Early acknowledgement: with late acknowledgement kombu 5.7 ends the whole worker when Redis goes away.
    "task_acks_late": False,
    "broker_transport_options": {
        "max_retries": 3,
        "interval_start": 0,
        "interval_step": 0.2,
        "socket_connect_timeout": 5,
        "socket_timeout": _SILENT_BROKER_SECONDS,
        "socket_keepalive": True,
    },
    "redis_socket_connect_timeout": 5,
    "redis_socket_timeout": _SILENT_BROKER_SECONDS,
    # Seconds: long enough for a restart of Redis, but short, because meanwhile a watched run cannot be cancelled.
    "result_backend_transport_options": {"retry_policy": {"timeout": 10}},
    "broker_connection_retry_on_startup": True,
    "worker_cancel_long_running_tasks_on_connection_loss": False,  # the run goes on without the broker
    # Otherwise, with celery 5.7 and threads, a run after a restart of RabbitMQ never begins: its thread waits for an
    # answer that the worker's main thread reads.
    "worker_enable_prefetch_count_reduction": False,
    # Otherwise RabbitMQ lets no worker start while it knows one of that name: a second one on a machine, or one whose
    # machine lost power. Durable because RabbitMQ 4 is going to refuse queues that are neither exclusive nor durable.
    "control_queue_exclusive": False,
    "control_queue_durable": True,
    "worker_hijack_root_logger": False,
    "result_expires": 86400,
}


def celery_configuration(broker: str | None, backend: str | None) -> dict[str, Any]:
    """The settings of a Celery app.

    Over TLS certificates are verified. By itself kombu takes any for `rediss://`, and for `amqps://` one of a trusted
    authority for any host; `ssl_cert_reqs` in a URL of Redis goes before what is said here.

    Args:
        broker: its URL; several are separated by semicolons.
        backend: URL of the store.
    """
    configuration = dict(_CONFIGURATION)
    match _scheme(broker):
        case "rediss":
            configuration["broker_use_ssl"] = {"ssl_cert_reqs": ssl.CERT_REQUIRED}
        case "amqps":
            host = urlsplit((broker or "").partition(";")[0]).hostname
            configuration["broker_use_ssl"] = {"cert_reqs": ssl.CERT_REQUIRED, "server_hostname": host}
    if _scheme(backend) == "rediss":
        configuration["redis_backend_use_ssl"] = {"ssl_cert_reqs": ssl.CERT_REQUIRED}
    return configuration


def _scheme(url: str | None) -> str:
    return (url or "").partition("://")[0].lower()
