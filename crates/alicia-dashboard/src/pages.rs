//! Routes of the pages, signing in and out.

use alicia_contract::ServiceName;
use alicia_identity::Identity;
use alicia_identity::session::SESSION_S;
use axum::extract::{Path, Query, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, SET_COOKIE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Extension, Form, Router};
use maud::{Markup, html};
use serde::Deserialize;

use crate::Site;
use crate::live::{self, Shown};
use crate::view;

/// Nothing but our own files; no inline script or style, no frame, no form to elsewhere.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
                      img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// Style and script change with the program only.
const ASSET_CACHE: &str = "private, max-age=300";

/// Who looks at the page.
type Visitor = Option<Extension<Identity>>;

pub(crate) fn router(site: Site) -> Router {
    Router::new()
        .route("/", get(overview))
        .route("/services/{name}", get(service))
        .route("/events", get(overview_events))
        .route("/services/{name}/events", get(service_events))
        .route("/sign-in", get(sign_in_page).post(sign_in))
        .route("/sign-out", post(sign_out))
        .route(
            "/assets/page.css",
            asset("text/css", include_str!("assets/page.css")),
        )
        .route(
            "/assets/page.js",
            asset("text/javascript", include_str!("assets/page.js")),
        )
        .route(
            "/assets/icon.svg",
            asset("image/svg+xml", include_str!("assets/icon.svg")),
        )
        .fallback(not_found)
        .layer(from_fn(protect))
        .with_state(site)
}

/// Headers that every page has.
async fn protect(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(
        HeaderName::from_static("referrer-policy"),
        HeaderValue::from_static("no-referrer"),
    );
    response
}

fn asset(content_type: &'static str, text: &'static str) -> MethodRouter<Site> {
    let headers = [(CONTENT_TYPE, content_type), (CACHE_CONTROL, ASSET_CACHE)]
        .map(|(name, value)| (name, HeaderValue::from_static(value)));
    get(async move || (headers, text))
}

async fn overview(State(site): State<Site>, visitor: Visitor) -> Response {
    show(&site, visitor, Shown::Overview).await
}

async fn service(State(site): State<Site>, visitor: Visitor, Path(name): Path<String>) -> Response {
    match ServiceName::new(name) {
        Ok(name) => show(&site, visitor, Shown::Service(name)).await,
        Err(_) => not_found().await,
    }
}

/// A whole page, or the way to sign in.
async fn show(site: &Site, visitor: Visitor, shown: Shown) -> Response {
    let Some(Extension(visitor)) = visitor else {
        return Redirect::to("/sign-in").into_response();
    };
    let fleet_name = site.cx.fleet.borrow().name.clone();
    let (title, stream) = match &shown {
        Shown::Overview => (fleet_name.clone(), "/events".to_owned()),
        Shown::Service(name) => (name.to_string(), format!("/services/{name}/events")),
    };
    let part = live::part(site, &shown).await;
    let body = html! {
        (view::header(&fleet_name, &visitor.to_string()))
        p id="lost" hidden role="alert" { "The connection is lost. What you see may be old." }
        p id="said" .unseen role="status" {}
        main id="main" {
            h1 { (title) }
            div id="live" { (part) }
        }
    };
    html_page(StatusCode::OK, &view::page(&title, Some(&stream), &body))
}

async fn overview_events(State(site): State<Site>, visitor: Visitor) -> Response {
    events(site, visitor, Shown::Overview)
}

async fn service_events(
    State(site): State<Site>,
    visitor: Visitor,
    Path(name): Path<String>,
) -> Response {
    match ServiceName::new(name) {
        Ok(name) => events(site, visitor, Shown::Service(name)),
        Err(_) => not_found().await,
    }
}

fn events(site: Site, visitor: Visitor, shown: Shown) -> Response {
    match visitor {
        Some(_) => live::stream(site, shown).into_response(),
        None => StatusCode::UNAUTHORIZED.into_response(),
    }
}

/// What a one-time link carries.
#[derive(Debug, Deserialize)]
struct Link {
    code: Option<String>,
}

async fn sign_in_page(State(site): State<Site>, Query(link): Query<Link>) -> Response {
    let Some(code) = link.code else {
        return sign_in_form(StatusCode::OK, None);
    };
    match site.cx.identity.redeem_link(&code, site.cx.clock.unix()) {
        Some(session) => signed_in(&session),
        None => {
            let why = "This link was used before or is too old. `alicia open` makes a new one.";
            sign_in_form(StatusCode::UNAUTHORIZED, Some(why))
        }
    }
}

/// What the form sends.
#[derive(Deserialize)]
struct Credentials {
    key: String,
}

async fn sign_in(State(site): State<Site>, Form(credentials): Form<Credentials>) -> Response {
    match site
        .cx
        .identity
        .start_session(&credentials.key, site.cx.clock.unix())
    {
        Some(session) => signed_in(&session),
        None => sign_in_form(
            StatusCode::UNAUTHORIZED,
            Some("This key is unknown, revoked or expired."),
        ),
    }
}

fn signed_in(session: &str) -> Response {
    with_cookie(session, SESSION_S, "/")
}

async fn sign_out() -> Response {
    with_cookie("", 0.0, "/sign-in")
}

/// There is no `Secure`: the page is served on this machine without TLS, where no other machine listens in.
fn with_cookie(session: &str, max_age_s: f64, to: &str) -> Response {
    let cookie = format!(
        "alicia_session={session}; Path=/; HttpOnly; SameSite=Strict; Max-Age={max_age_s:.0}"
    );
    let cookie = HeaderValue::from_str(&cookie).expect("a session has only harmless characters");
    let mut response = if to == "/" {
        after_sign_in()
    } else {
        Redirect::to(to).into_response()
    };
    response.headers_mut().insert(SET_COOKIE, cookie);
    response
}

/// A link from elsewhere (a terminal, a mail) opens a page to which a strict cookie is not sent if it is
/// redirected to; a page of our own that moves on by itself is.
fn after_sign_in() -> Response {
    let body = html! {
        main id="main" .narrow {
            h1 { "Signed in" }
            p { a href="/" { "Go to the fleet" } }
        }
    };
    let mut response = html_page(StatusCode::OK, &view::page("Signed in", None, &body));
    let refresh = HeaderValue::from_static("0; url=/");
    response
        .headers_mut()
        .insert(HeaderName::from_static("refresh"), refresh);
    response
}

fn sign_in_form(status: StatusCode, refused: Option<&str>) -> Response {
    html_page(
        status,
        &view::page("Sign in", None, &view::sign_in(refused)),
    )
}

async fn not_found() -> Response {
    let body = html! {
        main id="main" .narrow {
            h1 { "Nothing here" }
            p { a href="/" { "Go to the fleet" } }
        }
    };
    html_page(
        StatusCode::NOT_FOUND,
        &view::page("Nothing here", None, &body),
    )
}

fn html_page(status: StatusCode, page: &Markup) -> Response {
    (status, Html(page.0.clone())).into_response()
}
