// Puts the window together: the real backend, one session, one page.

import { mount } from 'svelte';

import './app.css';
import App from './App.svelte';
import { tauriBackend } from './lib/api/tauri';
import { Session } from './features/session/session.svelte';

const target = document.getElementById('app');
if (!target) throw new Error('index.html lost its #app element');

const session = new Session(tauriBackend);
mount(App, { target, props: { session } });
void session.connect();
