//! A rack of hosts around the machine: what it does in words, at random, and in every order of a small world.

#![forbid(unsafe_code)]

mod exhaustive;
mod identity;
mod large;
mod life;
mod random;
mod removal;
mod world;
