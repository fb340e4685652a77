"""The TLS proxy in front of the SuperLink: brands reach `/v1/fleet/…` and nothing else.

A SuperLink serves three interfaces on one port. Control and runtime belong to the coordinator's own
machine: here they don't exist for anyone who comes through the proxy. The address is compared as it
was sent, before anything is decoded, so that no spelling of another path gets through.

Somebody who opens many lines and says little on them would keep others out: what one address may
hold is limited, and whoever is slow is cut off. Each refusal is a line in the proxy's log, of time,
address and status: nothing that was sent.
"""

from __future__ import annotations

from abfed.coordinator.house import Places, Settings

LARGEST_BODY = "32m"  # Flower sends arrays in pieces of 5 MiB
REQUESTS_A_SECOND = 200  # from one address; a node asks about once in three seconds, pieces aside
LINES = 4096  # held at once; what goes through takes two, and each needs a file descriptor
LINES_OF_ONE = 100  # with a request on them, from one address; a node has up to ten


def proxy_configuration(places: Places, settings: Settings) -> str:
    """Nginx's configuration, complete; it runs under the coordinator's own user."""
    folder = places.proxy
    address = "127.0.0.1:" if settings.development else ""
    temporary = "\n".join(
        f'  {kind}_temp_path "{folder}/{kind}";'
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""# Written by `abfed provision`; it is written anew by the next one.
worker_processes 1;
worker_rlimit_nofile {2 * LINES};
daemon off;
pid "{folder}/nginx.pid";
error_log stderr warn;

events {{
  worker_connections {LINES};
}}

http {{
  log_format refused escape=json
    '{{"at":"$time_iso8601","event":"proxy.refused","status":$status,"address":"$remote_addr"}}';
  map $status $refused {{
    default 0;
    "~^[45]" 1;
  }}
  access_log "{places.log}/proxy.log" refused if=$refused;
  server_tokens off;
{temporary}
  client_max_body_size {LARGEST_BODY};
  client_body_timeout 10s;
  client_header_timeout 10s;
  keepalive_timeout 20s;
  send_timeout 30s;
  limit_req_zone $binary_remote_addr zone=nodes:1m rate={REQUESTS_A_SECOND}r/s;
  limit_conn_zone $binary_remote_addr zone=lines:1m;
  limit_conn lines {LINES_OF_ONE};
  limit_conn_log_level info;
  limit_req_log_level info;

  map $request_uri $fleet {{
    default 0;
    "~^/v1/fleet/[a-z]+(-[a-z]+)*$" 1;
  }}

  server {{
    listen {address}{settings.port} ssl;
    server_name {settings.host};
    ssl_certificate "{places.tls}/proxy.crt";
    ssl_certificate_key "{places.tls}/proxy.key";
    ssl_protocols TLSv1.3;
    ssl_session_tickets off;

    location / {{
      return 404;
    }}

    location = /v1/fleet {{
      return 404;
    }}

    location /v1/fleet/ {{
      if ($fleet = 0) {{
        return 404;
      }}
      limit_req zone=nodes burst=400 nodelay;
      proxy_pass https://127.0.0.1:{settings.link_port};
      proxy_http_version 1.1;
      proxy_ssl_verify on;
      proxy_ssl_trusted_certificate "{places.authority_certificate}";
      proxy_ssl_name localhost;
      proxy_ssl_server_name on;
      proxy_ssl_protocols TLSv1.3;
      proxy_pass_header Date;
      proxy_read_timeout 120s;
    }}
  }}
}}
"""
