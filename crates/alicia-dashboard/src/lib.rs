//! The web page: the fleet, its state, its output and its alerts, live.
//!
//! Server-rendered: the page is whole without JavaScript; with it, parts of the page are replaced as events
//! come (server-sent events that carry HTML made by the same functions). No build step, no request to anywhere.
//!
//! Reading order: `picture` (what is known, from the bus), `view` (HTML of it), `live` (the event stream),
//! `pages` (routes, sign-in), then the module itself below.

mod picture;

mod view;

mod live;

mod pages;

use std::sync::Arc;

use alicia_module::{Context, Error, Health, Module};
use axum::Router;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use picture::Picture;

/// The module `dashboard`.
pub struct Dashboard {
    site: Site,
}

/// The section `dashboard` of the file. There is nothing to set yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {}

/// What the pages work with.
#[derive(Clone)]
struct Site {
    cx: Context,
    picture: watch::Receiver<Arc<Picture>>,
}

impl Module for Dashboard {
    const NAME: &'static str = "dashboard";
    type Config = Config;

    async fn start(cx: Context, _config: Config) -> Result<Self, Error> {
        let (sender, picture) = watch::channel(Arc::new(Picture::default()));
        cx.spawn("picture", picture::keep(cx.clone(), sender));
        Ok(Self {
            site: Site { cx, picture },
        })
    }

    fn health(&self) -> Health {
        if self.site.picture.borrow().is_connected {
            Health::Ok
        } else {
            Health::Degraded(
                "no connection to the bus; the page shows what was last known".to_owned(),
            )
        }
    }

    fn pages(self: &Arc<Self>) -> Option<Router> {
        Some(pages::router(self.site.clone()))
    }
}
