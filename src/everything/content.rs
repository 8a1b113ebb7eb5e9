//! The image, the sound and the resources that several fixtures show.

use rmcp::model::{ContentBlock, ResourceContents};

/// A PNG of one red pixel, in base64.
pub(super) const PIXEL_PNG: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg==";

/// A WAV file with a header and no samples (mono, 8 kHz, 8 bit), in base64.
const SILENT_WAV: &str = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQAAAAA=";

/// The red pixel as a content block.
pub(super) fn image() -> ContentBlock {
    ContentBlock::image(PIXEL_PNG, "image/png")
}

/// The silent sound as a content block.
pub(super) fn audio() -> ContentBlock {
    ContentBlock::audio(SILENT_WAV, "audio/wav")
}

/// A text resource, embedded in the content itself.
pub(super) fn embedded(uri: &str, mime_type: &str, text: &str) -> ContentBlock {
    ContentBlock::resource(ResourceContents::text(text, uri).with_mime_type(mime_type))
}
