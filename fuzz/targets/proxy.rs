//! What proxies say of a client: no bytes panic, more bytes change no answer, and no client changes what a proxy appends.
#![no_main]

use std::net::IpAddr;

use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use ringmain::internals::protocol::ProxyHeader;
use ringmain::protocol::ForwardedHeader;

fuzz_target!(|data: &[u8]| {
    let whole = ProxyHeader::read(data);
    for end in 0..data.len() {
        let part = ProxyHeader::read(&data[..end]);
        assert!(part == Ok(None) || part == whole, "{end} bytes");
    }
    if let Ok(Some(header)) = whole {
        assert!(header.length <= data.len() && header.length <= ProxyHeader::MAX_BYTES);
    }

    let proxy: IpAddr = [10, 0, 0, 1].into();
    let own: IpAddr = [203, 0, 113, 9].into();
    for (header, name, appended) in [
        (ForwardedHeader::Forwarded, "forwarded", &b", for=203.0.113.9;proto=https"[..]),
        (ForwardedHeader::XForwardedFor, "x-forwarded-for", b", 203.0.113.9"),
    ] {
        let Ok(value) = HeaderValue::from_bytes(&[data, appended].concat()) else { return };
        let mut headers = HeaderMap::new();
        headers.insert(name, value);
        // The client's part need not be text.
        assert_eq!(header.client(proxy, &headers, |address| address == proxy), own);
    }
});
