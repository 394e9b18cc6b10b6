//! Where the words of a slab lie, and what a free asks to find out whose a block is.
//!
//! The rest of this box knows neither. By default words lie in flat tables (`flat`), and the route word of the block's unit says whose
//! it is (`by_route`). A cargo feature replaces one of the two, to measure what the choice is worth and for nothing else
//! (docs/decisions/0016-where-a-free-looks.md): `tail` keeps the words of a slab at its end, `by_header` asks a header before the block.

#[cfg(feature = "ablation-object-header")]
mod by_header;
#[cfg(not(feature = "ablation-object-header"))]
mod by_route;
#[cfg(not(feature = "ablation-slab-tail"))]
mod flat;
#[cfg(feature = "ablation-slab-tail")]
mod tail;

#[cfg(feature = "ablation-object-header")]
pub(crate) use by_header::{Label, Labels, WATCHES_SMALL, is_own, place_at};
#[cfg(not(feature = "ablation-object-header"))]
pub(crate) use by_route::{Label, Labels, WATCHES_SMALL, is_own, place_at};
#[cfg(not(feature = "ablation-slab-tail"))]
pub(crate) use flat::{MAY_BE_BARE, OfSlabs, Words, begin, end, remote, route, route_of_unit, state};
#[cfg(feature = "ablation-slab-tail")]
pub(crate) use tail::{MAY_BE_BARE, OfSlabs, Words, begin, end, remote, route, route_of_unit, state};
