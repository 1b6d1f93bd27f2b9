//! Who is in the cluster, in what state, and the map that follows from it.

#![forbid(unsafe_code)]
