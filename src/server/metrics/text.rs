//! Writes the metrics in the text format of OpenMetrics.

use std::fmt::{Error, Result};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, NoLabelSet, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::handle::{METHODS, Metrics, Readiness, RefusalCount, STATUSES};
use super::process;
use crate::session::Ending;
use crate::sync::Ordering;

impl Metrics {
    /// All metrics in the text format of OpenMetrics, which Prometheus reads. This also reads figures of the process,
    /// which may take some milliseconds with very many descriptors on Linux before 6.2.
    #[must_use]
    pub fn text(&self) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Page(self.clone())));
        let mut out = String::with_capacity(8 << 10);
        // Writing to a string does not fail.
        let written: std::result::Result<(), Error> = text::encode(&mut out, &registry);
        debug_assert!(written.is_ok(), "a string takes everything");
        out
    }
}

#[derive(Debug)]
struct Page(Metrics);

impl Collector for Page {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result {
        let mut sheet = Sheet(encoder);
        let metrics = &self.0;
        write_sessions(&mut sheet, metrics)?;
        write_streams(&mut sheet, metrics)?;
        write_connections(&mut sheet, metrics)?;
        write_requests(&mut sheet, metrics)?;
        write_process(&mut sheet)
    }
}

fn write_sessions(sheet: &mut Sheet<'_>, metrics: &Metrics) -> Result {
    let sessions = metrics.sessions();
    let counters = sessions.counters();
    sheet.gauge("ringmain_sessions", "Sessions at the moment.", &(sessions.len() as u64))?;
    sheet.counter("ringmain_sessions_created", "Sessions that were created.", counters.created())?;
    let ended = [
        ("idle", counters.expired_idle()),
        ("uninitialised", counters.expired_uninitialised()),
        ("age", counters.expired_absolute()),
        ("evicted", counters.evicted()),
        ("deleted", counters.deleted()),
        ("closed", counters.closed()),
    ];
    sheet.family(
        "ringmain_sessions_ended",
        "Sessions that ended, by reason.",
        ended.map(|(reason, count)| ([("reason", reason)], count)),
    )?;
    let refused = [
        ("limit", counters.refused_limit()),
        ("principal_limit", counters.refused_principal_limit()),
        ("rate", counters.refused_rate()),
        ("caller_rate", counters.refused_caller_rate()),
    ];
    sheet.family(
        "ringmain_sessions_refused",
        "Sessions that were asked for and refused, by reason.",
        refused.map(|(reason, count)| ([("reason", reason)], count)),
    )?;
    sheet.gauge(
        "ringmain_retained_bytes",
        "Bytes of events that streams keep, of waiting responses, and of what connections hold for clients.",
        &sessions.retained_bytes(),
    )?;
    sheet.counter(
        "ringmain_relieved_bytes",
        "Bytes of events that were let go because max_retained_bytes was reached.",
        counters.relieved_bytes(),
    )?;
    sheet.counter(
        "ringmain_responses_dropped",
        "Responses that went before their time because their session had too many that nobody fetched.",
        counters.responses_dropped(),
    )?;
    sheet.counter(
        "ringmain_responses_given_up",
        "Responses that went before their time because max_retained_bytes was reached.",
        counters.responses_given_up(),
    )?;
    sheet.counter(
        "ringmain_events_too_large",
        "Events that were refused for their size.",
        sessions.traffic().too_large(),
    )?;
    sheet.counter(
        "ringmain_messages_not_accepted",
        "Messages before a response that were dropped because their client accepts JSON alone.",
        sessions.traffic().not_accepted(),
    )
}

fn write_streams(sheet: &mut Sheet<'_>, metrics: &Metrics) -> Result {
    let (traffic, counters) = (metrics.sessions().traffic(), metrics.sessions().counters());
    let ended = Ending::ALL.map(|ending| (ending.as_str(), traffic.ended(ending)));
    // Ended streams are read first, so that the difference is never negative.
    let (all_ended, opened) = (ended.iter().map(|(_, count)| count).sum(), traffic.opened());
    sheet.gauge(
        "ringmain_streams",
        "Streams that are written to a connection at the moment.",
        &opened.saturating_sub(all_ended),
    )?;
    sheet.counter("ringmain_streams_opened", "Streams that began to be written to a connection.", opened)?;
    sheet.counter(
        "ringmain_streams_resumed",
        "Of those, the ones that went on behind an event ID.",
        counters.resumed(),
    )?;
    sheet.family(
        "ringmain_streams_ended",
        "Streams whose connection ended, by reason.",
        ended.map(|(reason, count)| ([("reason", reason)], count)),
    )?;
    sheet.counter("ringmain_streams_lagged", "Times a connection had missed events.", counters.lagged())?;
    sheet.counter(
        "ringmain_events_missed",
        "Events that were evicted before they were delivered.",
        counters.missed(),
    )?;
    sheet.counter(
        "ringmain_events_published",
        "Events that streams took, one for each stream a message was published to.",
        traffic.published(),
    )?;
    sheet.counter(
        "ringmain_events_delivered",
        "Events written to connections, replayed ones included.",
        traffic.delivered(),
    )?;
    let (sum, count, buckets) = metrics.latency().histogram();
    sheet
        .0
        .encode_descriptor(
            "ringmain_publish_to_write",
            "Time from the publication of an event until the socket took it, of a sample of the events that \
             leave over plain HTTP/1.1.",
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?
        .encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
}

fn write_connections(sheet: &mut Sheet<'_>, metrics: &Metrics) -> Result {
    let connections = metrics.connections();
    sheet.gauge("ringmain_connections", "Connections that are open.", &(connections.open() as u64))?;
    sheet.counter(
        "ringmain_connections_accepted",
        "Connections that were accepted.",
        connections.accepted(),
    )?;
    let refused = [
        ("total", connections.refused_total()),
        ("address", connections.refused_address()),
        ("handshake", connections.refused_handshake()),
    ];
    sheet.family(
        "ringmain_connections_refused",
        "Connections that were refused, by reason.",
        refused.map(|(reason, count)| ([("reason", reason)], count)),
    )?;
    let closed = [
        ("age", connections.closed_age()),
        ("idle", connections.closed_idle()),
        ("deadline", connections.closed_deadline()),
        ("stalled", connections.closed_stalled()),
        ("flood", connections.closed_flood()),
    ];
    sheet.family(
        "ringmain_connections_closed",
        "Connections that the server closed, by reason.",
        closed.map(|(reason, count)| ([("reason", reason)], count)),
    )
}

fn write_requests(sheet: &mut Sheet<'_>, metrics: &Metrics) -> Result {
    let mut requests = Vec::new();
    for (method, method_label) in METHODS.iter().enumerate() {
        for (status, number) in STATUSES.iter().enumerate() {
            // Zeros too: a rate does not see the first step of a series that begins at 1.
            let count = metrics.requests(method, status);
            let status = if *number == 0 { "other".to_owned() } else { number.to_string() };
            requests.push(([("method", (*method_label).to_owned()), ("status", status)], count));
        }
    }
    sheet.family("ringmain_requests", "Requests that were answered, by method and status.", requests)?;
    let mut refusals = Vec::new();
    let guard = scc::Guard::new();
    for (kind, RefusalCount { status, count }) in metrics.refusals().iter(&guard) {
        // Relaxed: a counter that orders nothing.
        let count = count.load(Ordering::Relaxed);
        refusals.push(([("kind", (*kind).to_owned()), ("status", status.to_string())], count));
    }
    refusals.sort_unstable();
    sheet.family("ringmain_refusals", "Requests that were refused, by reason.", refusals)?;
    let denials = metrics.denials().iter().map(|(reason, count)| ([("reason", reason)], count));
    sheet.family(
        "ringmain_denials",
        "Requests that authentication or authorization refused, by reason.",
        denials,
    )?;
    sheet.gauge(
        "ringmain_ready",
        "1 while the server serves, 0 before and while it drains.",
        &u64::from(metrics.readiness() == Readiness::Serving),
    )?;
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    sheet
        .0
        .encode_descriptor("ringmain_build", "Version of ringmain.", None, MetricType::Info)?
        .encode_info(&version)
}

fn write_process(sheet: &mut Sheet<'_>) -> Result {
    let Some(process) = process::look() else { return Ok(()) };
    sheet
        .0
        .encode_descriptor("process_cpu", "Processor time used.", Some(&Unit::Seconds), MetricType::Counter)?
        .encode_counter::<NoLabelSet, f64, f64>(&process.cpu_seconds, None)?;
    sheet.gauge_in(
        "process_start_time",
        "Start time of the process, in seconds since 1970.",
        &Unit::Seconds,
        &process.start_seconds,
    )?;
    sheet.gauge_in("process_resident_memory", "Resident memory.", &Unit::Bytes, &process.resident_bytes)?;
    sheet.gauge("process_open_fds", "Open file descriptors.", &process.open_fds)?;
    sheet.gauge("process_max_fds", "Maximum number of open file descriptors.", &process.max_fds)
}

/// What is written on.
struct Sheet<'a>(DescriptorEncoder<'a>);

impl Sheet<'_> {
    fn gauge(&mut self, name: &str, help: &str, value: &impl EncodeGaugeValue) -> Result {
        self.0.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(value)
    }

    fn gauge_in(&mut self, name: &str, help: &str, unit: &Unit, value: &impl EncodeGaugeValue) -> Result {
        self.0.encode_descriptor(name, help, Some(unit), MetricType::Gauge)?.encode_gauge(value)
    }

    /// The format appends `_total` to the name.
    fn counter(&mut self, name: &str, help: &str, value: impl EncodeCounterValue) -> Result {
        self.0
            .encode_descriptor(name, help, None, MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, f64>(&value, None)
    }

    /// Counters that differ in their labels.
    fn family<K: AsRef<str>, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = ([(&'static str, K); N], u64)>,
    ) -> Result {
        let mut encoder = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in values {
            let labels = labels.each_ref().map(|(name, label)| (*name, label.as_ref()));
            encoder.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&value, None)?;
        }
        Ok(())
    }
}
