//! Tokens and keys made with PyJWT and the Python package cryptography, as of 2023-11-14T22:13:20Z.

use super::*;

const NOW_US: u64 = 1_700_000_000_000_000;
const SECRET: &str = "0123456789abcdef0123456789abcdef";
const SET: &str = include_str!("../../tests/scenarios/own_tokens.keys.json");
const RSA_PEM: &str = "\
-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAsoDHvUaHhKwplAWOIF3g
4UrPVpvdNjqrES/E58JRjXswstBzTvj49uPpgjtAGMlYhMud1NfE0nLFT/yUMVVz
YQ4jfTc0B+FSG0sS/Yd4NzR2d9KnjHsMthupd8cQvQYN7fjRCPg9s9h5yOBbcQiq
6oEXCjTO2Gm/6HS29Xb/zTSeA81MI3ARAUWlbE9/WFtfdagtJwU27Pk3lPlxIRAu
4W3qeQQLEIEKSeGw6Qp4o5SlkmpQGOSTsK06Ssm7+0NhBtcAL5/gN1wM4cWHL4Y9
qY8sY+RxoLsjUcZ1947S8zUOdr4jgKrWGRbuUO/tZsH5FEG6mrtcEu1Ngc3y9ut7
eQIDAQAB
-----END PUBLIC KEY-----";
const P256_PEM: &str = "\
-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEKBUXYJYFe5foB1pmqVIgEJonwHmW
YXvnx7aZyw1dUKU6cORSsaaS8tWX1LCuizGOPcMKANChG+JQcDFIWZEZbQ==
-----END PUBLIC KEY-----";
const ED25519_PEM: &str = "\
-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAsb5eSZT2fHf5mfcLcDKgu6RhYC+N2yTRvCAftqM5Iic=
-----END PUBLIC KEY-----";
const HS: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJqb2UiLCJyb2xlIjoiYmFja2VuZCIsImV4cCI6MTcwMDAwMDA2MH0.alIA5qbY37lCi_mtdGh4fJ1yFwwsMoi6Y_utbwE1LQY";
const RS: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6InIiLCJ0eXAiOiJKV1QifQ.eyJzdWIiOiJqb2UiLCJyb2xlIjoiYmFja2VuZCIsImV4cCI6MTcwMDAwMDA2MH0.L5Setu1WAs3rHgwTbOIixhrtBrNNRxLWBjvxRtelNKjg5g9c7P6c9oks2a0jQOZe_pW1-sjkcYVsQMVjSyP7Cw88izYZxvRvvZn4X9ySOMr9mA-x6S4Ch4GlRf6umtmLrf5lp48xSHiCGoe2jXKzQFVFBHsIOltTIJ-RfKVRlH-3jUD0GEL0gDRPEZ4cvxlcgDBaxx6QudmvS9TTMrdJCE-2LoczyUxToAqHaAyT7g9B5XvN6VbVWLD9BJUJdo8lFNoR_o56KDB8drGTwOhkbQXX1X5F1dxtVk-MiZPfJkYPZCdQ_NdsDdlN1mY1Ibf2RmEZ6BhAxDrV2zV2BmhW3w";
const ES: &str = "eyJhbGciOiJFUzI1NiIsImtpZCI6ImUiLCJ0eXAiOiJKV1QifQ.eyJzdWIiOiJqb2UiLCJyb2xlIjoiYmFja2VuZCIsImV4cCI6MTcwMDAwMDA2MH0.qyHb6s1sNN4DJpDHRzqwGfTK0PYDO-8Km5PF73cNm6Zi7FV6-pbyUNwsi68UyQ7hScz0iOKxPiS-dz4nlRa-Ow";
const ED: &str = "eyJhbGciOiJFZERTQSIsImtpZCI6Im8iLCJ0eXAiOiJKV1QifQ.eyJzdWIiOiJqb2UiLCJyb2xlIjoiYmFja2VuZCIsImV4cCI6MTcwMDAwMDA2MH0.tFBrCWaYWMb2yZHakMsj7CJFvtce-t1CAGa2eL_J_n2X6-_suLA_jUPokJ6_U46BPBNt-2x3f53T_gYUBUVbBQ";
const RS_NOKID: &str = "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJqb2UiLCJyb2xlIjoiYmFja2VuZCIsImV4cCI6MTcwMDAwMDA2MH0.UBpIq0gwn2NIRdYYTMPAzFfbASi2ac3r9RGkPIFOeh8KCWx1Lfy15kUhEWU5LjDqHdt3WU9-3iZCs_X8Z15cPPIbTy4zKZoW8Q-6Pdfkqlyy1WCp0zcMKG9h7tNM94BLoH2I3JtBivZTsGf7lsPCTtl3OPqFnjEfS4s5ZkIBjt73rL6EKyP8Z5WAfOtprVgDOxbuTTkQ99wLuLIShhPaYn5pEn72vJmtolGUMKIZYWRtQKUJnP2kw5ZBniyIaw8bHEkAw5gQJAw2xn-jah_kKw9vA_sMhr0MZX04OPHGElrC6Z1YjRetId87bTKPwuhMufs1EqZDjjR7xHSrlbHbYw";
const HS_OTHER: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJqb2UiLCJyb2xlIjoiYmFja2VuZCIsImV4cCI6MTcwMDAwMDA2MH0.iqcJB518LKnY6V0uQJwF7k46KJQNBQV_a7IdTqnJSPo";
const HS_EXPIRED: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJqb2UiLCJyb2xlIjoiYmFja2VuZCIsImV4cCI6MTY5OTk5OTk2OX0._Vwyk2t3q-PzsoNQQPuMEpqtHYWXcOQCtm-nExYzHoI";
const HS_NEARLY: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJqb2UiLCJyb2xlIjoiYmFja2VuZCIsImV4cCI6MTY5OTk5OTk3MX0.D4s-QI_4bkCJiAvSRLR25HfrivBznZ3SuRw2tL_mlmw";
const HS_NOEXP: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJqb2UiLCJyb2xlIjoiYmFja2VuZCJ9.2q5FRzCXMAqol6PMjNCMEHIpP31eGR3TUT0VbAmmyU8";
const HS_NBF: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJqb2UiLCJyb2xlIjoiYmFja2VuZCIsImV4cCI6MTcwMDAwMDA2MCwibmJmIjoxNzAwMDAwMDMxfQ.D5ioBfBfERjNV5hJe1yHepvj-eP8cR2lNQvMHwoROms";
const HS_AUD: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJqb2UiLCJyb2xlIjoiYmFja2VuZCIsImV4cCI6MTcwMDAwMDA2MCwiYXVkIjpbImEiLCJjcm9zc3BvaW50Il0sImlzcyI6Im1lIn0.7UGTSRhmOB-bfj2zkPpQFww7mOm6J29-F3lFXSooxpA";
const HS_ISS: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJqb2UiLCJyb2xlIjoiYmFja2VuZCIsImV4cCI6MTcwMDAwMDA2MCwiYXVkIjoiY3Jvc3Nwb2ludCIsImlzcyI6InlvdSJ9.KCoKpxW2qNm6Wy2Y0UILDziodZVgO3TyhRDb8zUPdEE";
const HS_NOROLE: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJqb2UiLCJleHAiOjE3MDAwMDAwNjB9.kGjeQm2pBOe3hfkTlqxTHoxOR_tfpZHN3ytuFuMf8tY";
const HS_NOSUB: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJyb2xlIjoiYmFja2VuZCIsImV4cCI6MTcwMDAwMDA2MH0.a_mI9i5kGEkFkSMd_9KekjcdfiBlW9wK2wPeTlzfDFU";
const NONE: &str =
    "eyJhbGciOiAibm9uZSJ9.eyJzdWIiOiAiam9lIiwgInJvbGUiOiAiYmFja2VuZCIsICJleHAiOiAxNzAwMDAwMDYwfQ.";
const CONFUSED: &str = "eyJhbGciOiAiSFMyNTYiLCAia2lkIjogInIifQ.eyJzdWIiOiAiam9lIiwgInJvbGUiOiAiYmFja2VuZCIsICJleHAiOiAxNzAwMDAwMDYwfQ.BsH3Jx6vJnZQknINmnCCPvLAtw3G9P_mkuNmTtclDvg";
const CRIT: &str = "eyJhbGciOiAiSFMyNTYiLCAiY3JpdCI6IFsieCJdLCAieCI6IDF9.eyJzdWIiOiAiam9lIiwgInJvbGUiOiAiYmFja2VuZCIsICJleHAiOiAxNzAwMDAwMDYwfQ.IQKLc6W6baE1NkYWb0Kb9J149vGJotBsUlyuZ_463A0";

fn keys() -> Keys {
    Keys::parse(SET).unwrap().with_secret(SECRET)
}

fn rules() -> Rules {
    Rules {
        issuer: None,
        audience: None,
        leeway_us: 30_000_000,
        authid_claim: "sub".into(),
        role_claim: "role".into(),
        role: None,
        extra_claims: Some(Vec::new()),
    }
}

/// Whom a token lets in, and for how many seconds.
fn admitted(token: &str, rules: &Rules) -> Option<(Box<str>, Box<str>, u64)> {
    let token = Token::read(token)?;
    let claims = token.claims(rules, NOW_US)?;
    token.is_signed(&keys()).then_some((claims.authid, claims.role, claims.left_us / 1_000_000))
}

fn is_admitted(token: &str) -> bool {
    admitted(token, &rules()).is_some()
}

#[test]
fn every_algorithm() {
    for token in [HS, RS, ES, ED, RS_NOKID] {
        assert_eq!(admitted(token, &rules()), Some(("joe".into(), "backend".into(), 90)));
    }
    for (token, pem) in [(RS, RSA_PEM), (ES, P256_PEM), (ED, ED25519_PEM)] {
        let token = Token::read(token).unwrap();
        assert!(token.is_signed(&Keys::parse(pem).unwrap()));
        for other in [RSA_PEM, P256_PEM, ED25519_PEM] {
            assert_eq!(token.is_signed(&Keys::parse(other).unwrap()), other == pem);
        }
        assert!(!token.is_signed(&Keys::default().with_secret(pem)) && !token.is_signed(&Keys::default()));
    }
}

/// With one character changed, whatever it is, nothing is signed any more.
#[test]
fn what_was_changed_is_not_signed() {
    for token in [HS, ES, ED] {
        for place in 0..token.len() {
            let mut changed = token.as_bytes().to_vec();
            changed[place] = if changed[place] == b'A' { b'Q' } else { b'A' };
            assert!(!is_admitted(std::str::from_utf8(&changed).unwrap()), "{place}");
        }
    }
}

#[test]
fn no_other_way_to_sign() {
    for token in [HS_OTHER, NONE, CONFUSED, CRIT, "", "..", "a.b.c", "secret!!!"] {
        assert!(!is_admitted(token), "{token}");
    }
    assert!(!is_admitted(&format!("{HS}.")) && !is_admitted(&"a".repeat(TOKEN_BYTES_MAX + 1)));
}

#[test]
fn times_and_names() {
    assert!(is_admitted(HS_NEARLY));
    assert!(!is_admitted(HS_AUD) && !is_admitted(HS_ISS), "for somebody, and nobody said for whom");
    for token in [HS_EXPIRED, HS_NOEXP, HS_NBF, HS_NOROLE, HS_NOSUB] {
        assert!(!is_admitted(token), "{token}");
    }
    let role = Rules { role: Some("guest".into()), ..rules() };
    assert_eq!(admitted(HS_NOROLE, &role).unwrap().1, "guest".into());
    assert_eq!(admitted(HS, &role).unwrap().1, "backend".into());
    let rules = Rules { issuer: Some("me".into()), audience: Some("crosspoint".into()), ..rules() };
    assert!(admitted(HS_AUD, &rules).is_some());
    assert!(admitted(HS_ISS, &rules).is_none() && admitted(HS, &rules).is_none());
}

#[test]
fn what_is_no_key() {
    for text in [
        "",
        "{}",
        "{\"keys\": []}",
        "{\"keys\": [{\"kty\": \"RSA\"}]}",
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
    ] {
        assert!(Keys::parse(text).is_err(), "{text}");
    }
    assert_eq!(Keys::parse(SET).unwrap().0.len(), 3);
}

#[test]
fn what_is_told_of_a_token_is_bounded() {
    let all = Rules { extra_claims: None, ..rules() };
    let token = |length: usize| {
        let claims = format!("{{\"sub\":\"joe\",\"exp\":1700000060,\"x\":\"{}\"}}", "y".repeat(length));
        let text =
            format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#), URL_SAFE_NO_PAD.encode(claims));
        Token::read(&text).unwrap()
    };
    let around = r#"{"x":""}"#.len();
    assert_eq!(token(EXTRA_BYTES_MAX - around).extra(&all).unwrap().len(), EXTRA_BYTES_MAX);
    assert!(token(EXTRA_BYTES_MAX - around + 1).extra(&all).is_err());
    // What is not told does not count.
    assert_eq!(&*token(EXTRA_BYTES_MAX).extra(&rules()).unwrap(), "");
    let listed = Rules { extra_claims: Some(vec!["exp".into()]), ..rules() };
    assert_eq!(&*token(9).extra(&listed).unwrap(), r#"{"exp":1700000060}"#);
}
