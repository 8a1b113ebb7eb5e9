//! The servers under test.

use std::io;
use std::path::Path;
use std::process::Command;

use crate::fleet::Opening;
use crate::process::Server;

/// A server under test.
#[derive(Clone, Copy, Debug)]
pub struct Rival {
    /// Its name in tables.
    pub name: &'static str,
    /// How its streams are opened.
    pub opening: Opening,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// A binary that stands beside this one, and its arguments.
    Ours { binary: &'static str, server: &'static str, arguments: &'static [&'static str] },
    /// nginx with nchan; the channel of a subscriber.
    Nchan(&'static str),
}

const fn rival(name: &'static str, server: &'static str, opening: Opening) -> Rival {
    Rival { name, opening, kind: Kind::Ours { binary: "server", server, arguments: &[] } }
}

/// The yardstick: one write for each event.
pub const RAW: Rival = rival("raw", "raw", Opening::Get).of("raw");
/// The yardstick: one `writev` for what is pending.
pub const RAW_COALESCED: Rival = RAW.with(&["--coalesce"]);
/// ringmain with a low-level handler.
pub const OURS: Rival = rival("ringmain", "lowest", Opening::Session);
/// The binary `ringmain`, which hosts an rmcp handler, with its own publish API.
pub const SERVE: Rival = rival("ringmain+rmcp", "serve", Opening::Handshake).of("ringmain");
/// Plain hyper, one channel for all.
pub const HYPER: Rival = rival("hyper body", "hyper", Opening::Get);
/// A map of sessions with a broadcast channel each, behind axum.
pub const BROADCAST: Rival = rival("broadcast+axum", "broadcast", Opening::Session);
/// rmcp's own transport.
pub const RMCP: Rival = rival("rmcp", "rmcp", Opening::Handshake);
/// The same with a handler that publishes.
pub const RMCP_PUBLISH: Rival = RMCP.with(&["--publish"]);
/// nginx with nchan, all subscribers on one channel.
pub const NCHAN: Rival = Rival { name: "nchan", opening: Opening::Get, kind: Kind::Nchan("all") };
/// nginx with nchan, a channel for each subscriber.
pub const NCHAN_SESSIONS: Rival =
    Rival { name: "nchan", opening: Opening::Get, kind: Kind::Nchan("$arg_session") };

/// Where Debian puts the module.
const NCHAN_MODULE: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";

impl Rival {
    /// The same with other arguments.
    #[must_use]
    pub const fn with(self, arguments: &'static [&'static str]) -> Self {
        match self.kind {
            Kind::Ours { binary, server, .. } => {
                Self { kind: Kind::Ours { binary, server, arguments }, ..self }
            }
            Kind::Nchan(_) => self,
        }
    }

    /// The same from another binary.
    const fn of(self, binary: &'static str) -> Self {
        match self.kind {
            Kind::Ours { server, arguments, .. } => {
                Self { kind: Kind::Ours { binary, server, arguments }, ..self }
            }
            Kind::Nchan(_) => self,
        }
    }

    /// The same on the system's allocator, under another name.
    #[must_use]
    pub const fn glibc(self, name: &'static str) -> Self {
        self.of("server-glibc").named(name)
    }

    /// The same under another name.
    #[must_use]
    pub const fn named(self, name: &'static str) -> Self {
        Self { name, ..self }
    }

    /// Whether it can be started here.
    #[must_use]
    pub fn is_there(&self) -> bool {
        match self.kind {
            Kind::Ours { .. } => true,
            Kind::Nchan(_) => {
                let nginx = Command::new("nginx").arg("-v").output().is_ok();
                nginx && Path::new(NCHAN_MODULE).exists()
            }
        }
    }

    /// Starts it.
    ///
    /// # Errors
    ///
    /// It is not built, or takes no connections.
    pub fn start(&self) -> io::Result<Server> {
        match self.kind {
            Kind::Ours { binary, server, arguments } => {
                let arguments: Vec<&str> = std::iter::once(server).chain(arguments.iter().copied()).collect();
                Server::start(binary, &arguments)
            }
            Kind::Nchan(channel) => start_nchan(channel),
        }
    }
}

/// One process without a master, like the others here; access logs off, buffers for 256 events.
fn start_nchan(channel: &str) -> io::Result<Server> {
    let scratch = std::env::temp_dir().join(format!("ringmain-perf-{}", std::process::id()));
    let mut server = Server::start_with(|listen, admin| {
        let directory = scratch.join(listen.port().to_string());
        std::fs::create_dir_all(&directory)?;
        let directory = directory.display();
        let config = format!(
            "load_module {NCHAN_MODULE};\n\
             daemon off; master_process off; pid {directory}/pid; error_log {directory}/error.log;\n\
             worker_rlimit_nofile 20000; events {{ worker_connections 19000; }}\n\
             http {{ access_log off; client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;\n\
             fastcgi_temp_path {directory}/fastcgi; uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;\n\
             nchan_max_reserved_memory 256m; nchan_message_buffer_length 256; keepalive_requests 100000000;\n\
             server {{ listen {listen} backlog=4096; location /mcp {{ nchan_subscriber eventsource;\n\
             nchan_channel_id {channel}; nchan_subscriber_first_message newest; }} }}\n\
             server {{ listen {admin}; location /publish {{ nchan_publisher; nchan_channel_id $arg_session; }} }} }}\n"
        );
        let path = format!("{directory}/nginx.conf");
        std::fs::write(&path, config)?;
        let mut command = Command::new("nginx");
        command.args(["-c", &path, "-e", &format!("{directory}/error.log")]);
        Ok(command)
    })?;
    server.scratch = Some(scratch);
    Ok(server)
}
