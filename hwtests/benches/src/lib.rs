//! Measurements of the real thing: programs that print figures as ratios, each naming the sentence
//! in `docs/` that it backs. What they share is here.
#![forbid(unsafe_code)]
