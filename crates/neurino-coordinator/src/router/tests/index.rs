//! What is asked of an index against what every node says.

use super::*;

fn of_owner(owner: u8, machine: u8) -> NodeId {
    NodeId::new(format!("0x{owner:040x}-m{machine}")).expect("valid")
}

fn address(owner: u8) -> String {
    format!("0x{owner:040x}")
}

fn class(n: u8) -> String {
    format!("fp_{n}")
}

proptest! {
    #[test]
    fn owners_are_found_as_if_every_node_were_asked(
        steps in prop::collection::vec((0u8..4, 0u8..3, 0u8..5, 0u8..3, any::<bool>()), 1..60),
        asks in prop::collection::vec(
            (0u8..4, prop::option::of(0u8..4), prop::collection::vec(0u8..4, 0..3),
             prop::option::of((0u8..4, 0u8..3)), any::<bool>()),
            1..20,
        ),
    ) {
        let mut router = Router::default();
        for (owner, machine, served, of, scores) in steps {
            let id = of_owner(owner, machine);
            if served == 4 {
                router.remove_node(&id);
                continue;
            }
            let standing = Standing { class: class(of), scores, ..Standing::default() };
            router.set_one(&id, vec![model(&format!("m{served}"))], u32::from(served != 3), 0, standing);
        }
        for (served, of, not, only, scores) in asks {
            let served = model(&format!("m{served}"));
            let placement = Placement {
                not_owners: not.into_iter().map(address).collect(),
                class: of.map(class),
                only: only.map(|(owner, machine)| vec![of_owner(owner, machine)]),
                scores,
                ..Placement::default()
            };
            let may = |(id, node): (&NodeId, &Node)| Router::may_serve(id, node, &served, Some(&placement));
            prop_assert_eq!(router.serves_placed(&served, &placement), router.nodes.iter().any(may));
            let serving = router.nodes.values().filter(|node| node.serves(&served)).count();
            prop_assert_eq!(router.serving(&served), serving);
        }
        for n in 0..4 {
            let of_class = |id: &&NodeId| router.classes(id).any(|own| own == class(n));
            let owners: BTreeSet<&str> = router.nodes.keys().filter(of_class).map(owner_of).collect();
            prop_assert_eq!(router.owners_of_class(&class(n)), owners.len());
        }
        let all: Vec<NodeId> = router.nodes.keys().cloned().collect();
        for id in all {
            router.remove_node(&id);
        }
        prop_assert_eq!(router.served().count(), 0);
        prop_assert_eq!(router.owners_of_class(&class(0)), 0);
    }
}
