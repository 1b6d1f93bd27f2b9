//! Verbs that ask the controller and print what it says.

use std::future::Future;

use serde::Serialize;
use wire::controller::{CreateTokenRequest, DeviceRow, DrainRequest, Empty, NodeRow, RemoveRequest};

use super::connect::{AdminLink, with_controller};
use super::show::{self, Device, JoinToken, Node, Status};
use crate::args::Output;
use crate::error::CliError;
use crate::output;
use crate::rack_args::{Access, DeviceVerb, NodeVerb, TokenVerb};

/// Shortest start of an id that stands for it.
const PREFIX_MIN: usize = 4;

/// `holdfast status`.
pub(crate) fn status(access: &Access, format: Output) -> Result<(), CliError> {
    let reply = asked(access, |mut admin| async move { admin.status(Empty {}).await })?;
    let status = Status::from(reply);
    output::print(format, &status, || show::status(&status))
}

/// `holdfast node list|show|drain|remove`.
pub(crate) fn node(verb: NodeVerb, format: Output) -> Result<(), CliError> {
    match verb {
        NodeVerb::Run(_) => unreachable!("running a node is its own verb"),
        NodeVerb::List { access } => {
            let nodes = nodes(&access)?;
            output::print(format, &nodes, || show::nodes(&nodes))
        }
        NodeVerb::Show { access, node } => {
            let node = one_node(&access, &node)?;
            let devices: Vec<Device> =
                devices(&access)?.into_iter().filter(|device| device.node == node.node).collect();
            #[derive(Serialize)]
            struct Shown {
                node: Node,
                devices: Vec<Device>,
            }
            let shown = Shown { node, devices };
            let text = |shown: &Shown| {
                let table = show::nodes(std::slice::from_ref(&shown.node));
                let more = format!(
                    "id {}, {}, clock {:+} ms beside the controller's, map {}",
                    shown.node.node, shown.node.version, shown.node.clock_offset_ms, shown.node.map_epoch
                );
                format!("{table}\n{more}\n\n{}", show::devices(&shown.devices))
            };
            output::print(format, &shown, || text(&shown))
        }
        NodeVerb::Drain { access, node, undo } => {
            let target = one_node(&access, &node)?.node;
            let row = asked(&access, |mut admin| async move { admin.drain_node(DrainRequest { target, undo }).await })?;
            print_node(row, format)
        }
        NodeVerb::Remove { access, node, force } => {
            let target = one_node(&access, &node)?.node;
            let ask = RemoveRequest { target, force };
            print_node(asked(&access, |mut admin| async move { admin.remove_node(ask).await })?, format)
        }
    }
}

/// `holdfast device list|show|locate|drain|remove`.
pub(crate) fn device(verb: DeviceVerb, format: Output) -> Result<(), CliError> {
    match verb {
        DeviceVerb::List { access } => {
            let devices = devices(&access)?;
            output::print(format, &devices, || show::devices(&devices))
        }
        DeviceVerb::Show { access, device } => {
            let device = one_device(&access, &device)?;
            output::print(format, &device, || {
                let about = format!(
                    "id {}, model {}, serial {}, puts {:.2} ms, gets {:.2} ms",
                    device.device, device.model, device.serial, device.put_p50_ms, device.get_p50_ms
                );
                format!("{}\n{about}", show::devices(std::slice::from_ref(&device)))
            })
        }
        DeviceVerb::Locate { access, device } => {
            let device = one_device(&access, &device)?;
            let node = one_node(&access, &device.node)?;
            #[derive(Serialize)]
            struct Place<'a> {
                device: &'a str,
                site: &'a str,
                rack: &'a str,
                node: &'a str,
                path: &'a str,
                model: &'a str,
                serial: &'a str,
            }
            let place = Place {
                device: &device.device,
                site: &node.site,
                rack: &node.rack,
                node: &node.name,
                path: &device.path,
                model: &device.model,
                serial: &device.serial,
            };
            output::print(format, &place, || {
                let Place { device, site, rack, node, path, model, serial } = place;
                let told = |text: &str| if text.is_empty() { "not told".to_owned() } else { text.to_owned() };
                let (model, serial) = (told(model), told(serial));
                format!("device {device}\n  {site} / {rack} / {node}\n  {path}\n  model {model}, serial {serial}")
            })
        }
        DeviceVerb::Drain { access, device, undo } => {
            let target = one_device(&access, &device)?.device;
            let ask = DrainRequest { target, undo };
            print_device(asked(&access, |mut admin| async move { admin.drain_device(ask).await })?, format)
        }
        DeviceVerb::Remove { access, device, force } => {
            let target = one_device(&access, &device)?.device;
            let ask = RemoveRequest { target, force };
            print_device(asked(&access, |mut admin| async move { admin.remove_device(ask).await })?, format)
        }
    }
}

/// `holdfast token create|list`.
pub(crate) fn token(verb: TokenVerb, format: Output) -> Result<(), CliError> {
    match verb {
        TokenVerb::Create { access, hours, comment } => {
            let ask = CreateTokenRequest { ttl_s: hours * 3600, comment };
            let token = asked(&access, |mut admin| async move { admin.create_token(ask).await })?;
            let token = JoinToken::from(token);
            output::print(format, &token, || token.token.clone())
        }
        TokenVerb::List { access } => {
            let list = asked(&access, |mut admin| async move { admin.list_tokens(Empty {}).await })?;
            let tokens: Vec<JoinToken> = list.tokens.into_iter().map(JoinToken::from).collect();
            output::print(format, &tokens, || show::tokens(&tokens))
        }
    }
}

fn nodes(access: &Access) -> Result<Vec<Node>, CliError> {
    let list = asked(access, |mut admin| async move { admin.list_nodes(Empty {}).await })?;
    Ok(list.nodes.into_iter().map(Node::from).collect())
}

fn devices(access: &Access) -> Result<Vec<Device>, CliError> {
    let list = asked(access, |mut admin| async move { admin.list_devices(Empty {}).await })?;
    Ok(list.devices.into_iter().map(Device::from).collect())
}

fn print_node(row: NodeRow, format: Output) -> Result<(), CliError> {
    let node = Node::from(row);
    output::print(format, &node, || format!("node {} is {}", node.name, node.state))
}

fn print_device(row: DeviceRow, format: Output) -> Result<(), CliError> {
    let device = Device::from(row);
    output::print(format, &device, || format!("device {} is {}", device.device, device.state))
}

/// The one node that a name, an id or the start of an id stands for.
fn one_node(access: &Access, given: &str) -> Result<Node, CliError> {
    one(nodes(access)?, given, "node", |node| [&node.name, &node.node])
}

fn one_device(access: &Access, given: &str) -> Result<Device, CliError> {
    one(devices(access)?, given, "device", |device| [&device.device, &device.serial])
}

fn one<T>(all: Vec<T>, given: &str, what: &str, names: impl Fn(&T) -> [&String; 2]) -> Result<T, CliError> {
    let exact = |item: &T| names(item).into_iter().any(|name| name == given);
    let begins = |item: &T| given.len() >= PREFIX_MIN && names(item).into_iter().any(|name| name.starts_with(given));
    let any_exact = all.iter().any(exact);
    let mut found: Vec<T> = all.into_iter().filter(|item| if any_exact { exact(item) } else { begins(item) }).collect();
    match found.len() {
        1 => Ok(found.swap_remove(0)),
        0 => Err(CliError::Refused(format!("there is no {what} {given}"))),
        n => Err(CliError::Refused(format!("{n} {what}s are called {given}: give the whole id"))),
    }
}

fn asked<T, F, Fut>(access: &Access, ask: F) -> Result<T, CliError>
where
    F: FnOnce(AdminLink) -> Fut,
    Fut: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
{
    with_controller(&access.operator, ask)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pick(given: &str) -> Result<String, String> {
        let all = vec![
            ["n1".to_owned(), "abcd01".to_owned()],
            ["n2".to_owned(), "abcd02".to_owned()],
            ["abcd".to_owned(), "ffff00".to_owned()],
        ];
        one(all, given, "node", |pair| [&pair[0], &pair[1]]).map(|pair| pair[0].clone()).map_err(|e| e.to_string())
    }

    #[test]
    fn a_name_an_id_or_a_unique_start_of_it_stands_for_one() {
        assert_eq!(pick("n1"), Ok("n1".into()));
        assert_eq!(pick("abcd02"), Ok("n2".into()));
        assert_eq!(pick("ffff"), Ok("abcd".into()));
        // A whole name goes before the starts of others.
        assert_eq!(pick("abcd"), Ok("abcd".into()));
        assert_eq!(pick("abcd0"), Err("2 nodes are called abcd0: give the whole id".into()));
        assert_eq!(pick("fff"), Err("there is no node fff".into()));
    }
}
