"""nginx and HAProxy as contestants.

Lives here: their configurations: one process on one core, nothing buffered, connections kept, nothing logged.
May not live here: any other program; starting it (arena).
How it works: text with places to fill in, plain or with TLS on either side; both verify the upstream's certificate.
Doubted: they get no key to check and do no accounting; they are the bar for moving bytes, not for being a gateway.
"""

from __future__ import annotations

import getpass
import grp
import os
from pathlib import Path

from bench.arena import AUTHORITY, CERTIFICATE, PLAIN, Probe, Start, Tls, free_port, program
from bench.machine import file_limit

_HEALTH = "/healthz"

_NGINX = """\
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
{user}
events {{ worker_connections 16384; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    client_max_body_size 32m;
    client_body_buffer_size 2m;  # no request of the bench touches the disk
    keepalive_requests 100000000;
    upstream provider {{
        server 127.0.0.1:{upstream};
        keepalive 1024;
        keepalive_requests 100000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096{ssl};
        {certificate}
        location = {health} {{ return 200; }}
        location / {{
            proxy_pass {scheme}://provider;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            {verify}
        }}
    }}
}}
"""

_HAPROXY = """\
global
    nbthread 1
    maxconn {connections}
    tune.ssl.default-dh-param 2048
defaults
    mode http
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    option http-no-delay
    http-reuse always
frontend clients
    bind 127.0.0.1:{port} backlog 4096{bind}
    http-request return status 200 if {{ path {health} }}
    default_backend provider
backend provider
    server provider 127.0.0.1:{upstream} pool-max-conn 1024{server}
"""


def start_nginx(upstream: int, folder: Path, key: str) -> Start:
    return start_nginx_tls(PLAIN, upstream, folder, key)


def start_nginx_tls(tls: Tls, upstream: int, folder: Path, key: str) -> Start:
    path = program("nginx")
    port = free_port()
    # As root, nginx would switch to a user who cannot enter our folder.
    user = f"user {getpass.getuser()} {grp.getgrgid(os.getegid()).gr_name};" if os.geteuid() == 0 else ""
    certificate = folder / CERTIFICATE
    config = folder / "nginx.conf"
    config.write_text(
        _NGINX.format(
            folder=folder,
            user=user,
            upstream=upstream,
            port=port,
            health=_HEALTH,
            ssl=" ssl" if tls.client else "",
            certificate=f"ssl_certificate {certificate}; ssl_certificate_key {certificate};" if tls.client else "",
            scheme="https" if tls.upstream else "http",
            verify=f"proxy_ssl_verify on; proxy_ssl_name localhost; proxy_ssl_trusted_certificate {folder}/{AUTHORITY};"
            if tls.upstream
            else "",
        )
    )
    log = str(folder / "error.log")
    return Start([path, "-p", str(folder), "-e", log, "-c", str(config)], port, {}, Probe(port, _HEALTH))


def start_haproxy(upstream: int, folder: Path, key: str) -> Start:
    return start_haproxy_tls(PLAIN, upstream, folder, key)


def start_haproxy_tls(tls: Tls, upstream: int, folder: Path, key: str) -> Start:
    path = program("haproxy")
    port = free_port()
    config = folder / "haproxy.cfg"
    config.write_text(
        _HAPROXY.format(
            upstream=upstream,
            port=port,
            health=_HEALTH,
            connections=min(9000, file_limit() // 2 - 100),  # it does not start if two files for each are too many
            bind=f" ssl crt {folder / CERTIFICATE}" if tls.client else "",
            server=f" ssl verify required ca-file {folder / AUTHORITY}" if tls.upstream else "",
        )
    )
    return Start([path, "-db", "-f", str(config)], port, {}, Probe(port, _HEALTH))
