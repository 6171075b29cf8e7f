//! `crds/` and the chart sluice-crds are what the code says.

#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on ends")]

use std::{fs, path::Path};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use sluice::cli::crd::{self, Arguments, Kind};

#[test]
fn the_generated_files_equal_the_code() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (path, expected) in crd::generated_files().expect("serialises") {
        let found = fs::read_to_string(root.join(&path)).unwrap_or_default();
        assert!(
            found == expected,
            "{} is out of date; run `sluice crd --write .`",
            path.display()
        );
    }
}

#[test]
fn nothing_in_the_definitions_looks_like_a_template_to_helm() {
    for (path, content) in crd::generated_files().expect("serialises") {
        assert!(!content.contains("{{"), "{} has a template in it", path.display());
    }
}

#[test]
fn words_that_yaml_takes_for_booleans_are_quoted_and_read_back_the_same() {
    for (kind, (path, content)) in [
        Kind::Messagebrokers,
        Kind::Messagebrokers,
        Kind::Messagetopics,
        Kind::Messagetopics,
    ]
    .into_iter()
    .zip(crd::generated_files().expect("serialises"))
    {
        assert!(
            !content.contains(" Off\n"),
            "{}: a plain Off is false to kubectl",
            path.display()
        );
        let read: CustomResourceDefinition = serde_yaml::from_str(&content).expect("YAML");
        assert_eq!(read.spec, kind.definition().spec);
    }
}

#[test]
fn one_kind_or_both_are_printed() {
    let mut both = Vec::new();
    crd::run(&Arguments::default(), &mut both).expect("prints");
    let both = String::from_utf8(both).expect("text");
    assert_eq!(both.matches("\nkind: CustomResourceDefinition\n").count(), 2);
    let mut one = Vec::new();
    crd::run(
        &Arguments {
            kind: Some(Kind::Messagetopics),
            write: None,
        },
        &mut one,
    )
    .expect("prints");
    let one = String::from_utf8(one).expect("text");
    assert!(one.contains("name: messagetopics.sluice.dev") && !one.contains("messagebrokers.sluice.dev"));
    assert!(both.ends_with(&one));
}

#[test]
fn the_files_are_written_where_they_belong() {
    let root = tempfile::tempdir().expect("a directory");
    let arguments = Arguments {
        kind: None,
        write: Some(root.path().to_owned()),
    };
    crd::run(&arguments, &mut Vec::new()).expect("writes");
    for (path, expected) in crd::generated_files().expect("serialises") {
        assert_eq!(
            fs::read_to_string(root.path().join(path)).expect("written"),
            expected
        );
    }
}
