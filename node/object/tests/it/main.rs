//! The object layer over simulated disks, and over devices that are slow, dead or somewhere else.

mod fake;
mod gateways;
mod objects;
mod rack;
mod slow;
mod views;
mod wire;
